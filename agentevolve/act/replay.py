"""Known actions in a fresh world, without an agent: to look at its start, to prove a solution or a skill."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

from agentevolve.load import load_environment
from agentevolve.records import SOLVED, Task


class Replay(NamedTuple):
    """What came back, the start first as the agent would read it, each with the reward in [0, 1] so far."""

    seen: tuple[tuple[str, float], ...]

    @property
    def start(self) -> str:
        """What the task says at its start."""
        return self.seen[0][0]

    @property
    def solved(self) -> bool:
        """Whether the actions reached the full reward."""
        return self.seen[-1][1] >= SOLVED


def replay(task: Task, actions: Sequence[str]) -> Replay:
    """Start `task` and take the actions until they, or the episode, are over. What the world raises is raised."""
    with closing(load_environment(task.env)()) as world:
        observation, info = world.reset(task)
        start = "\n".join(part for part in (task.prompt, str(info.get("notes", "")), observation) if part)
        seen = [(start, 0.0)]
        for action in actions:
            step = world.step(action)
            reward = float(step.info.get("score", seen[-1][1] + step.reward))
            seen.append((step.observation, min(1.0, max(0.0, reward))))
            if step.terminated or step.truncated:
                break
    return Replay(tuple(seen))
