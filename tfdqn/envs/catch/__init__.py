"""Catch: balls fall, and a paddle must be under each of them."""
