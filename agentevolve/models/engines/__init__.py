"""Engines that serve a local model behind OpenAI's routes."""
