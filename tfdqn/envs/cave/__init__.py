"""Cave: fly through a tunnel that narrows, between its walls and around blocks."""
