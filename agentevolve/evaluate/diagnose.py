"""Evaluation as an operator: how good the policy is, and what it should practise next (survey 2404.14387, section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agentevolve.act.asking import ask
from agentevolve.act.prompting import render, transcript
from agentevolve.policy import Policy
from agentevolve.records import Trajectory
from agentevolve.refine import best, learnable, unsolved
from agentevolve.run.folder import Run

SHOWN = 2  # attempts of each outcome in the question


class Assessment(NamedTuple):
    """The mean reward in [0, 1], and the next objective in the model's words: empty where nothing is known."""

    score: float
    objective: str


def assess(attempts: Sequence[Trajectory], policy: Policy, run: Run) -> Assessment:
    """The survey's f^E: a score of these attempts, and the next objective, asked over a few solved and failed ones.

    An attempt that was lost has no reward and is left out. Ask once a round. Raises ValueError for a held-out attempt:
    what is practised next may not depend on what it is measured by.
    """
    found = learnable(attempts)
    if not found:
        return Assessment(0.0, "")
    shown = [(transcript(one), one.solved) for one in [*unsolved(found)[:SHOWN], *best(found)[:SHOWN]]]
    score = sum(one.reward for one in found) / len(found)
    prompt = render("assess", attempts=shown, score=score)
    said = ask(policy, run, f"assess/{run.round}", prompt, max_tokens=60)
    return Assessment(score, said.partition("\n")[0])
