"""A run: its folder and journal, what it may spend, and what it shows of its progress."""
