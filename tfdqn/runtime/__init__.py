"""The process and its device: compilation, devices, memory, signals."""
