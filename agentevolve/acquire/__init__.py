"""Phase 1, acquire: where tasks and solutions come from (survey 2404.14387, sections 4.1 and 4.2)."""

from agentevolve.acquire.hints import is_plan, plans
from agentevolve.acquire.mutate import mutate
from agentevolve.acquire.perturb import perturbed
from agentevolve.acquire.pool import select
from agentevolve.acquire.propose import propose, train_only
from agentevolve.acquire.talk import talked_over
from agentevolve.acquire.validate import earlier, grown, validated

__all__ = [
    "earlier",
    "grown",
    "is_plan",
    "mutate",
    "perturbed",
    "plans",
    "propose",
    "select",
    "talked_over",
    "train_only",
    "validated",
]
