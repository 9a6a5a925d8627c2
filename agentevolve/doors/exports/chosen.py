"""Which attempts of a run are exported, and how their values are said so that any reader takes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

from agentevolve.given import cut, shown
from agentevolve.protocols import AgentevolveError
from agentevolve.records import SPLITS, Outcome, Record, Split, Trajectory
from agentevolve.redact import plain
from agentevolve.run.folder import read_run, seeds, written

Files = Iterator[tuple[str, str]]  # names within the export's folder, and what each holds


class Wanted(Record):
    """Which attempts: of these splits (none: of every one), with `solved` only those, of one round, of one environment."""

    splits: tuple[Split, ...] = ()
    solved: bool = False
    round: int | None = None
    env: str | None = None


class Origin(NamedTuple):
    """The run that attempts come from: its name, and when it was last written."""

    run: str
    written: datetime


def wanted(splits: Sequence[str], *, solved: bool, round: int | None, env: str | None) -> Wanted:
    """The filter. Raises AgentevolveError for a split that is none."""
    for split in splits:
        if split not in SPLITS:
            raise AgentevolveError(f"--split: {shown(split)} is not known; known: {', '.join(SPLITS)}")
    return Wanted(splits=cast("tuple[Split, ...]", tuple(splits)), solved=solved, round=round, env=env)


def origin(place: Path) -> Origin:
    """What the run at `place` is called, and when its journals were last written."""
    last = max(written(folder) for folder in seeds(place))
    return Origin(cut(plain(place.resolve().name)), datetime.fromtimestamp(last, UTC))


def chosen(place: Path, asked: Wanted) -> list[Trajectory]:
    """The attempts of the run at `place` that are asked for, as they stand; of several seeds, each says its own in its id.

    Those that were forgotten are left out: there is nothing of them but what they cost. Raises AgentevolveError, naming what
    there is, when nothing is left.
    """
    runs = [read_run(folder) for folder in seeds(place)]
    left = [(run, one) for run in runs for one in run.outcomes_of(lambda _: True, lost=True) if not one.forgotten]
    for words, value, of in _conditions(asked):
        before = left
        left = [(run, one) for run, one in before if of(one) in value]
        if before and not left:
            known = ", ".join(sorted({str(of(one)) for _, one in before}))
            raise AgentevolveError(f"{place}: no attempt is left with the {words}; known: {known}")
    if not left:
        raise AgentevolveError(f"{place}: no attempt to export")
    found = [(run, run.attempts()[one.id]) for run, one in left]
    if len(runs) == 1:
        return [one for _, one in found]
    return [one.model_copy(update={"id": f"{run.folder.name}/{one.id}"}) for run, one in found]


def _conditions(asked: Wanted) -> list[tuple[str, tuple[Any, ...], Callable[[Outcome], Any]]]:
    """What is asked for: in words, the values it lets through, and what of an attempt it looks at."""
    found: list[tuple[str, tuple[Any, ...], Callable[[Outcome], Any]]] = []
    if asked.splits:
        found.append((f"split {', '.join(asked.splits)}", asked.splits, lambda one: one.task.split))
    if asked.round is not None:
        found.append((f"round {asked.round}", (asked.round,), round_of))
    if asked.env is not None:
        found.append((f"environment {shown(asked.env)}", (asked.env,), lambda one: one.task.env))
    if asked.solved:
        found.append(("outcome solved", ("solved",), lambda one: "lost" if one.lost else "solved" if one.solved else "failed"))
    return found


def round_of(one: Outcome) -> int:
    """The round in which the attempt was made, by its phase: 0 before the first one."""
    first = one.phase.partition("/")[0]
    return int(first) if first.isdecimal() else 0


def task_set(one: Trajectory) -> str:
    """The task set that the attempt's task is of, by its id (NAME/SPLIT/SEED); its environment for another kind of id."""
    return one.task.id.rpartition(f"/{one.task.split}/")[0] or one.task.env


def text(value: Any, indent: int | None = None) -> str:
    """The value as JSON in ASCII: some readers end a line at U+2028, too."""
    return json.dumps(plain(value), indent=indent) + "\n"


def lines(rows: Sequence[Any]) -> str:
    """The rows as JSONL."""
    return "".join(map(text, rows))
