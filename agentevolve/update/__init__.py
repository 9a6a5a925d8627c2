"""Phase 3, update: a new policy, from entries (in context) or from rows (in weights) (survey 2404.14387, section 6)."""

from agentevolve.update.context import memory_of, remember, remembered, rewrite
from agentevolve.update.weights import examples, finetune, fit, local_base, preferences

__all__ = ["examples", "finetune", "fit", "local_base", "memory_of", "preferences", "remember", "remembered", "rewrite"]
