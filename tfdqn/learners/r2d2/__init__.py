"""R2D2: a recurrent Q-network that learns from windows of a replay."""
