"""What answers: the one LiteLLM call, models without weights, choices and tools; `engines/` serve the local ones."""
