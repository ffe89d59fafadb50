"""Doors to other libraries' environments. Each needs its library: see the extras in setup.cfg."""
