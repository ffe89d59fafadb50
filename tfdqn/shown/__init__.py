"""Games for people: one game frame by frame, drawn in a terminal whose keys are heard. Shapes: A actions."""
