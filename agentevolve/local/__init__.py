"""The embedded local model: its files (catalog), its server in this process (engine) and its training."""
