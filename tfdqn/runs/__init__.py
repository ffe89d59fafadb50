"""A run's life: its folder, loop, checkpoints and logs."""
