"""Phase 2, refine: from what was lived through to what is worth keeping (survey 2404.14387, section 5)."""

from agentevolve.refine.advantage import advantages
from agentevolve.refine.censor import censor, topics, underserved
from agentevolve.refine.consensus import settled, unverified
from agentevolve.refine.curate import curated
from agentevolve.refine.filters import agreement, best, cap, keep, learnable, shortest, split, unsolved
from agentevolve.refine.guides import guidelines
from agentevolve.refine.ifthen import collective, if_then, proven, unheard
from agentevolve.refine.judge import judge
from agentevolve.refine.lessons import abstracted, cases, critique, demos, entry, reflect
from agentevolve.refine.nearness import distinct, grouped, varied, vectors
from agentevolve.refine.pairs import Pair, against, best_worst, differing, divergence
from agentevolve.refine.playbook import added, reflections, tagged, trusted
from agentevolve.refine.rules import Edit, insights, read_edits, voted
from agentevolve.refine.skills import corrected, verified
from agentevolve.refine.worth import counted, helpful, recent

__all__ = [
    "Edit",
    "Pair",
    "abstracted",
    "added",
    "advantages",
    "against",
    "agreement",
    "best",
    "best_worst",
    "cap",
    "cases",
    "censor",
    "collective",
    "corrected",
    "counted",
    "critique",
    "curated",
    "demos",
    "differing",
    "distinct",
    "divergence",
    "entry",
    "grouped",
    "guidelines",
    "helpful",
    "if_then",
    "insights",
    "judge",
    "keep",
    "learnable",
    "proven",
    "read_edits",
    "recent",
    "reflect",
    "reflections",
    "settled",
    "shortest",
    "split",
    "tagged",
    "topics",
    "trusted",
    "underserved",
    "unheard",
    "unsolved",
    "unverified",
    "varied",
    "vectors",
    "verified",
    "voted",
]
