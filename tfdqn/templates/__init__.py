"""What `python -m tfdqn.new_game` writes: a game and its test, with MyGame and my_game for the names."""
