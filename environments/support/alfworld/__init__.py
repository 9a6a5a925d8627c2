"""ALFWorld: its engine, its games and their plans."""
