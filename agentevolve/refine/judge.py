"""Feedback of a model instead of the environment: a judge that never sees a reward (survey 2404.14387, section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.asking import ask
from agentevolve.act.prompting import render, transcript
from agentevolve.policy import Policy
from agentevolve.records import Trajectory
from agentevolve.refine.filters import learnable
from agentevolve.run.folder import Run
from agentevolve.run.progress import progress

GRADES = ("0", "1", "2", "3", "4", "5")


def judge(trajectories: Sequence[Trajectory], policy: Policy, run: Run) -> dict[str, float]:
    """For each attempt how well it did its task in the words of the policy's own model, from 0 to 1, by trajectory id.

    An additive grade of 0 to 5 (Self-Rewarding, 2401.10020); a backend that fails gives 0.
    """
    scores = {}
    with progress(f"round {run.round}: judging", len(trajectories), quiet=run.quiet) as advance:
        for trajectory in learnable(trajectories):
            prompt = render("judge", transcript=transcript(trajectory))
            said = ask(policy, run, f"judge/{trajectory.id}", prompt, choices=GRADES, temperature=0.0)
            scores[trajectory.id] = GRADES.index(said) / (len(GRADES) - 1) if said in GRADES else 0.0
            advance("")
    return scores
