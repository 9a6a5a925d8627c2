"""Phase 2, refine: from what was lived through to what is worth keeping (survey 2404.14387, section 5).

Filters choose among trajectories by their reward (metric-based); reflection asks the model what went wrong (critique-based).
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.asking import ask
from agentevolve.policy import Policy
from agentevolve.progress import progress
from agentevolve.prompting import render, transcript
from agentevolve.records import Entry, Trajectory
from agentevolve.run import Run

REFLECTION_TOKENS = 60


def learnable(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Those that may be learnt from: attempts at `train` tasks that did not end in an error.

    Raises ValueError when a held-out task is among them: nothing of `val` or `test` is ever remembered or trained on.
    """
    leaked = [trajectory.task.id for trajectory in trajectories if trajectory.task.split != "train"]
    if leaked:
        raise ValueError(f"held-out tasks may not be learnt from: {', '.join(leaked[:3])}")
    return [trajectory for trajectory in trajectories if trajectory.end != "error"]


def best(trajectories: Sequence[Trajectory], *, per_task: int = 1, max_turns: int | None = None) -> list[Trajectory]:
    """The solved attempts with the fewest turns, at most `per_task` different ones a task, none longer than `max_turns`.

    Best-of-k by length: of the ways that were found to solve a task, the shortest carries the fewest aimless actions.
    """
    by_task: dict[str, dict[tuple[str, ...], Trajectory]] = {}
    for trajectory in sorted(learnable(trajectories), key=lambda one: (len(one.turns), one.id)):
        if trajectory.solved and len(trajectory.turns) <= (max_turns or len(trajectory.turns)):
            ways = by_task.setdefault(trajectory.task.id, {})
            way = tuple(turn.action for turn in trajectory.turns)
            if way not in ways and len(ways) < per_task:
                ways[way] = trajectory
    return [trajectory for ways in by_task.values() for trajectory in ways.values()]


def unsolved(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """One failed attempt of every task that no attempt solved: the one with the highest reward."""
    attempts = learnable(trajectories)
    solved = {trajectory.task.id for trajectory in attempts if trajectory.solved}
    failed = [trajectory for trajectory in attempts if trajectory.task.id not in solved]
    ranked = sorted(failed, key=lambda one: (-one.reward, one.id))
    return list({trajectory.task.id: trajectory for trajectory in reversed(ranked)}.values())[::-1]


def demos(trajectories: Sequence[Trajectory], round: int) -> list[Entry]:
    """A demo entry of each solved trajectory: found by what its task looked like at the start, shown as its transcript."""
    return [
        Entry(
            id=f"demo/{trajectory.id}",
            kind="demo",
            key=trajectory.prompt,
            text=transcript(trajectory),
            env=trajectory.task.env,
            task=trajectory.task.id,
            round=round,
            reward=trajectory.reward,
            sources=(trajectory.id,),
        )
        for trajectory in learnable(trajectories)
        if trajectory.solved
    ]


def reflect(trajectories: Sequence[Trajectory], policy: Policy, run: Run, round: int) -> list[Entry]:
    """A reflection on each failed trajectory, written by the policy's own model (Reflexion, 2303.11366).

    A backend that fails leaves its reflection out.
    """
    entries = []
    with progress(f"round {round}: reflecting", len(trajectories), quiet=run.quiet) as advance:
        for trajectory in learnable(trajectories):
            prompt = render("reflect", transcript=transcript(trajectory))
            if text := ask(policy, run, f"reflection/{trajectory.id}", prompt, max_tokens=REFLECTION_TOKENS):
                entries.append(_lesson(trajectory, text, round))
            advance("")
    return entries


def _lesson(trajectory: Trajectory, text: str, round: int) -> Entry:
    return Entry(
        id=f"reflection/{trajectory.id}",
        kind="reflection",
        key=trajectory.prompt,
        text=text,
        env=trajectory.task.env,
        task=trajectory.task.id,
        round=round,
        reward=trajectory.reward,
        sources=(trajectory.id,),
    )
