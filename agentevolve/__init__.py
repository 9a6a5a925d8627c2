"""agentevolve."""
