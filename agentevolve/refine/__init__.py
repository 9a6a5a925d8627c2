"""Phase 2, refine: from what was lived through to what is worth keeping (survey 2404.14387, section 5)."""

from agentevolve.refine.filters import agreement, best, cap, keep, learnable, shortest, split, unsolved
from agentevolve.refine.judge import judge
from agentevolve.refine.lessons import abstracted, cases, critique, demos, entry, reflect
from agentevolve.refine.pairs import Pair, against, best_worst, differing, divergence
from agentevolve.refine.rules import Edit, insights, read_edits, voted

__all__ = [
    "Edit",
    "Pair",
    "abstracted",
    "against",
    "agreement",
    "best",
    "best_worst",
    "cap",
    "cases",
    "critique",
    "demos",
    "differing",
    "divergence",
    "entry",
    "insights",
    "judge",
    "keep",
    "learnable",
    "read_edits",
    "reflect",
    "shortest",
    "split",
    "unsolved",
    "voted",
]
