"""What the training program looks like on a GPU, compiled on a machine without one: `python -m benchmarks.aot`."""
