"""Which of the tasks that a model made can be practised: well-formed, new, and solved by the world's own solution."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from typing import Any

from agentevolve.acquire.propose import train_only
from agentevolve.act.replay import replay
from agentevolve.load import check_settings, load_environment
from agentevolve.records import Task, Trajectory
from agentevolve.run.folder import Run, identity
from agentevolve.run.progress import progress

PLAIN = re.compile(r"[\w -]{1,40}")  # a word that names neither code nor a file
LEAVES = 100


def validated(candidates: Sequence[Task], known: Sequence[Task], run: Run) -> list[Task]:
    """The candidates that can be practised, in their order, each once.

    Kept is what is modest and passes the environment's `check`; is no known task, no held-out one and no twin of a known one
    of its seed: one that starts alike and answers alike to what solves the other; and is solved when the world's own solution
    is replayed. Where that solves no known task of the seed either, as in a world that has none, it is enough that it starts.
    The world's solutions are journalled. Raises ValueError for a held-out task.
    """
    train_only([*candidates, *known])
    taken = {identity(task) for task in known} | run.held_out
    kept: list[Task] = []
    with progress(f"round {run.round}: validating tasks", len(candidates), quiet=run.quiet) as advance:
        for task in candidates:
            advance("")
            if identity(task) in taken or not _well_formed(task, [one.data for one in known if one.env == task.env]):
                continue
            beside = [one for one in [*known, *kept] if (one.env, one.seed) == (task.env, task.seed)]
            provable = not beside or any(_proof(one, run)["solved"] for one in beside)
            sound = _proof(task, run)["solved" if provable else "starts"]
            if sound and not any(_alike(task, one, run) for one in beside):
                kept.append(task)
    return kept


def earlier(run: Run) -> list[Trajectory]:
    """The attempts of the rounds before the one under way."""
    return run.acquired(*range(1, run.round)) if run.round > 1 else []


def grown(tasks: Sequence[Task], run: Run) -> list[Task]:
    """The tasks given, and those that earlier rounds made of them and practised."""
    given = {task.id: task for task in tasks}
    made = {one.task.id: one.task for one in earlier(run) if one.task.id.partition("+")[0] in given}
    return list((given | made).values())


def _well_formed(task: Task, known: Sequence[dict[str, Any]]) -> bool:
    if not _modest(task.data, known):
        return False
    try:
        check_settings(task.env, task.data)
    except Exception:  # a check is written for what people write, and may stumble over anything else
        return False
    return True


def _modest(data: dict[str, Any], known: Sequence[dict[str, Any]]) -> bool:
    """Whether settings that a model wrote are harmless: settings may name code or files to a world, or ask for a huge one.

    A text is one that known settings have in that place, or a plain word; a number at most twice the largest there, or 10.
    """
    held: dict[str, list[Any]] = {}
    for place, value in (leaf for settings in known for leaf in _leaves(settings)):
        held.setdefault(place, []).append(value)
    leaves = list(_leaves(data))
    return len(leaves) <= LEAVES and all(_usual(value, held.get(place, [])) for place, value in leaves)


def _usual(value: Any, held: Sequence[Any]) -> bool:
    if value in held or isinstance(value, bool) or value is None:
        return True
    if isinstance(value, str):
        return bool(PLAIN.fullmatch(value))
    return bool(abs(value) <= max([10, *(2 * abs(one) for one in held if isinstance(one, int | float))]))


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{place}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, f"{place}[]")
    else:
        yield place, value


def _proof(task: Task, run: Run) -> dict[str, Any]:
    """The world's own solution of a task, whether it solves it, and whether the task starts at all."""
    mark = hashlib.sha256(identity(task).encode()).hexdigest()[:16]
    proof: dict[str, Any] = run.once(f"proof/{mark}", lambda: _tried(task))
    return proof


def _tried(task: Task) -> dict[str, Any]:
    plan = []
    with suppress(Exception), closing(load_environment(task.env)()) as world:  # a world may have no solution of its own
        plan = list(world.oracle(task))
    try:
        found = replay(task, plan)
    except Exception:  # worlds are not made for such settings: whatever they raise, this one cannot be played
        return {"starts": False, "solved": False, "plan": plan}
    return {"starts": True, "solved": found.solved, "plan": plan}


def _alike(task: Task, other: Task, run: Run) -> bool:
    """Whether two tasks start alike and go on alike, as far as both go, while what solves the other one is done in both."""
    plan = _proof(other, run)["plan"]
    try:
        both = zip(replay(task, plan).seen, replay(other, plan).seen, strict=False)
    except Exception:  # one of them cannot be played like the other
        return False
    return all(ours == theirs for ours, theirs in both)
