"""Networks: layers, bodies by name, and the list of them."""
