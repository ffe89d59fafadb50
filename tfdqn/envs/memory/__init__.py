"""Memory: a cue is shown once, and asked for much later."""
