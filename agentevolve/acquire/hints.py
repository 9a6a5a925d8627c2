"""Help with an attempt that training takes away again (survey 2404.14387, section 4.2.1, rationale-based)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from agentevolve.act.prompting import render
from agentevolve.load import load_environment
from agentevolve.records import Task


def plans(tasks: Sequence[Task]) -> dict[str, str]:
    """For each task the world's own solution as a hint, by task id: rationalisation (STaR, 2203.14465).

    Raises ValueError for a held-out task: its solution is nobody's to show.
    """
    if leaked := [task.id for task in tasks if task.split != "train"]:
        raise ValueError(f"the solutions of held-out tasks may not be shown: {', '.join(leaked[:3])}")
    hints = {}
    for task in tasks:
        with closing(load_environment(task.env)()) as environment:
            hints[task.id] = render("hint", plan=environment.oracle(task))
    return hints


def is_plan(hint: str) -> bool:
    """Whether a hint is a solution that the world gave, as `plans` words it."""
    return hint.startswith(render("hint", plan=[]).rstrip(" ."))
