"""What the environments share, and what belongs to one of them alone."""
