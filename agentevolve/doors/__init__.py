"""Doors to the ecosystem: what other people's agents and tools reach a memory by."""
