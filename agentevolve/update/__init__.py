"""Phase 3, update: a new policy, from entries (in context) or from rows (in weights) (survey 2404.14387, section 6)."""

from agentevolve.update.absorption import absorbed
from agentevolve.update.context import before, memory_of, remember, remembered, replace, rewrite, sound
from agentevolve.update.merging import merged
from agentevolve.update.meta import meta_skill
from agentevolve.update.mixing import by_frequency, mixed, per_skill, replayed
from agentevolve.update.weights import examples, finetune, fit, local_base, preferences, recalling

__all__ = [
    "absorbed",
    "before",
    "by_frequency",
    "examples",
    "finetune",
    "fit",
    "local_base",
    "memory_of",
    "merged",
    "meta_skill",
    "mixed",
    "per_skill",
    "preferences",
    "recalling",
    "remember",
    "remembered",
    "replace",
    "replayed",
    "rewrite",
    "sound",
]
