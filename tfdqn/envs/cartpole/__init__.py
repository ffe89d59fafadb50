"""Cart-pole: keep a pole upright on a cart that is pushed left or right."""
