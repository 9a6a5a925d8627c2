"""TextWorld: one lock for its compiler, and its games in processes of their own."""
