"""A censor: how satisfied somebody would be with an attempt, and with which topics they are served badly (DPSE, 2507.15281)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import NamedTuple

from agentevolve.act.asking import ask
from agentevolve.act.prompting import render
from agentevolve.policy import Policy
from agentevolve.records import Task, Trajectory
from agentevolve.refine.filters import learnable
from agentevolve.refine.judge import judge
from agentevolve.run.folder import Run

OTHER = "other"


class Signals(NamedTuple):
    """What can be seen of an attempt without its reward, each from 0 to 1.

    `grade` is the judge's; `variety` the share of its turns that were not there before, action and answer alike; `finished`
    says whether it came to an end of its own.
    """

    grade: float
    variety: float
    finished: float

    @property
    def satisfaction(self) -> float:
        """Their mean."""
        return mean(self)


def signals(trajectory: Trajectory, grade: float) -> Signals:
    """The signals of an attempt that the judge gave this grade."""
    seen = [(turn.action, turn.observation) for turn in trajectory.turns]
    return Signals(grade, len(set(seen)) / len(seen) if seen else 0.0, float(trajectory.end == "terminated"))


def censor(trajectories: Sequence[Trajectory], policy: Policy, run: Run) -> dict[str, float]:
    """For each attempt an estimate of the satisfaction with it, from 0 to 1, by trajectory id."""
    grades = judge(trajectories, policy, run)
    return {one.id: signals(one, grades[one.id]).satisfaction for one in learnable(trajectories)}


def topics(trajectories: Sequence[Trajectory], policy: Policy, run: Run, known: Sequence[str]) -> dict[str, str]:
    """For each attempt which of the `known` topics its task has, in the words of the policy's model, by trajectory id.

    A task is asked about once a round; an answer that is none of them is "other".
    """
    found = {}
    for one in learnable(trajectories):
        key, prompt = f"topic/{run.round}/{one.task.id}", render("topic", task=one.prompt, topics=known)
        said = ask(policy, run, key, prompt, choices=known, temperature=0.0, max_tokens=20)
        found[one.id] = said if said in known else OTHER
    return found


def underserved(trajectories: Sequence[Trajectory], served: Mapping[str, float], topic: Mapping[str, str]) -> list[Task]:
    """The tasks of the topics with which the satisfaction is no higher than with all topics in the mean."""
    by_topic: dict[str, list[float]] = defaultdict(list)
    for one in learnable(trajectories):
        by_topic[topic[one.id]].append(served[one.id])
    means = {name: mean(scores) for name, scores in by_topic.items()}
    poor = {name for name, score in means.items() if score <= mean(means.values())}
    return list({one.task.id: one.task for one in learnable(trajectories) if topic[one.id] in poor}.values())
