"""What is compiled: collecting and learning, evaluation, and what they share."""
