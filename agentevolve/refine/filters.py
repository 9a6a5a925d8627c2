"""Filters: which trajectories are worth learning from (survey 2404.14387, section 5.1).

Metric-based filters go by the environment's reward or a judge's score, metric-free ones by how attempts agree with each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from agentevolve.records import SOLVED, Trajectory


def learnable(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Those that may be learnt from: attempts at `train` tasks that did not end in an error, and were not forgotten.

    Raises ValueError when a held-out task is among them: nothing of `val` or `test` is ever remembered or trained on.
    """
    leaked = [trajectory.task.id for trajectory in trajectories if trajectory.task.split != "train"]
    if leaked:
        raise ValueError(f"held-out tasks may not be learnt from: {', '.join(leaked[:3])}")
    return [trajectory for trajectory in trajectories if not trajectory.lost and not trajectory.forgotten]


def keep(
    trajectories: Sequence[Trajectory], *, at_least: float = SOLVED, scores: Mapping[str, float] | None = None
) -> list[Trajectory]:
    """Those whose reward is `at_least` that, or whose score is, where `scores` (by trajectory id) stand in for the reward."""
    return [one for one in learnable(trajectories) if (one.reward if scores is None else scores[one.id]) >= at_least]


def shortest(trajectories: Sequence[Trajectory], *, max_turns: int | None = None) -> list[Trajectory]:
    """By their number of turns, fewest first, none longer than `max_turns`."""
    found = sorted(learnable(trajectories), key=lambda one: (len(one.turns), one.id))
    return [one for one in found if len(one.turns) <= (max_turns or len(one.turns))]


def cap(trajectories: Sequence[Trajectory], per_task: int) -> list[Trajectory]:
    """The first `per_task` different ways, as sequences of actions, of each task, in the order given."""
    by_task: dict[str, dict[tuple[str, ...], Trajectory]] = {}
    for trajectory in learnable(trajectories):
        ways = by_task.setdefault(trajectory.task.id, {})
        way = tuple(turn.action for turn in trajectory.turns)
        if way not in ways and len(ways) < per_task:
            ways[way] = trajectory
    return [trajectory for ways in by_task.values() for trajectory in ways.values()]


def best(trajectories: Sequence[Trajectory], *, per_task: int = 1, max_turns: int | None = None) -> list[Trajectory]:
    """The solved attempts with the fewest turns, at most `per_task` different ones a task, none longer than `max_turns`.

    Best-of-k by length: of the ways that were found to solve a task, the shortest carries the fewest aimless actions.
    """
    return cap(shortest(keep(trajectories), max_turns=max_turns), per_task)


def split(trajectories: Sequence[Trajectory]) -> tuple[list[Trajectory], list[Trajectory]]:
    """The solved and the failed ones."""
    found = learnable(trajectories)
    return [one for one in found if one.solved], [one for one in found if not one.solved]


def unsolved(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """One failed attempt of every task that no attempt solved: the one with the highest reward."""
    attempts = learnable(trajectories)
    solved = {trajectory.task.id for trajectory in attempts if trajectory.solved}
    failed = [trajectory for trajectory in attempts if trajectory.task.id not in solved]
    ranked = sorted(failed, key=lambda one: (-one.reward, one.id))
    return list({trajectory.task.id: trajectory for trajectory in reversed(ranked)}.values())[::-1]


def agreement(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """For each attempt the share of its task's attempts that took the same actions (self-consistency, 2203.11171).

    Metric-free: neither reward nor judge is asked. As `scores` of `keep` it is the majority vote.
    """
    ways = {one.id: (one.task.id, tuple(turn.action for turn in one.turns)) for one in learnable(trajectories)}
    alike, attempts = Counter(ways.values()), Counter(task for task, _ in ways.values())
    return {id: alike[way] / attempts[way[0]] for id, way in ways.items()}
