"""Worse attempts by asking for worse ones (survey 2404.14387, section 4.2.2, perturbative)."""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.prompting import render
from agentevolve.act.rollout import rollout
from agentevolve.policy import Policy
from agentevolve.records import Task, Trajectory
from agentevolve.run.folder import Run


def perturbed(policy: Policy, tasks: Sequence[Task], run: Run, *, samples: int = 1) -> tuple[list[Trajectory], list[Trajectory]]:
    """Attempts asked for with care and without, on the same seeds, each in the order of (task, sample); nobody scores them.

    What asked for them is taken out of their system message again, so that training does not see it (RLCD, 2307.12950).
    """
    careful = _told(policy, tasks, run, samples, "careful", render("careful"))
    return careful, _told(policy, tasks, run, samples, "careless", render("careless"))


def _told(policy: Policy, tasks: Sequence[Task], run: Run, samples: int, manner: str, words: str) -> list[Trajectory]:
    told = policy.using(instructions="\n".join(part for part in (policy.instructions, words) if part))
    phase = f"{run.round}/acquire/{manner}"
    made = rollout(told, tasks, run, phase=phase, samples=samples, luck=f"{run.round}/acquire/perturbed")
    return [one.model_copy(update={"system": one.system.removesuffix(words).rstrip("\n")}) for one in made]
