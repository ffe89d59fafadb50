"""Trained agents for programs that know nothing of tfdqn: other formats, and the proof that they play the same."""
