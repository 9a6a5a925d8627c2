"""Acting: the agent's graph, its prompts, the pool of attempts, questions outside of attempts."""
