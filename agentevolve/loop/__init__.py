"""Rounds: an evolution, a comparison of methods, and a forecast of what they will cost."""
