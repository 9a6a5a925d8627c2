"""What workers elsewhere have made for a run and it has not journalled yet: a small run of each worker's own, a *shard*.

RUN/journal.d/NODE-PROCESS-N/    a worker's shard: its journal, and its notes of what it is paying for

A worker journals an attempt in its shard before it tells of it, so neither its death nor that of the process it tells loses what
was paid for. The run's journal keeps its one writer, which takes in what it is told; of a shard whose worker has died, or of
one that a killed run has left, it takes in what was not told, and charges what the worker had begun.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from contextlib import closing
from pathlib import Path

from agentevolve.protocols import AgentevolveError
from agentevolve.records import Usage
from agentevolve.run.folder import LOST, MANNER, Run

SHARDS = "journal.d"
PATIENCE = 30.0  # seconds in which a worker ends whose run was killed


def shards_of(run: Run) -> list[Path]:
    """The shards that lie in the run's folder and belong to no rollout under way."""
    return sorted(path for path in _left(run) if path.is_dir())


def _left(run: Run) -> list[Path]:
    return [path for path in (run.folder.resolve() / SHARDS).glob("*") if path not in run.at_work]


def take_in_all(run: Run) -> None:
    """Take in every shard that a process before this one has left; then nothing is left of it there."""
    for shard in shards_of(run):
        take_in(shard, run)
    for path in _left(run):  # what showed its nodes that they see the folder
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # there is none, or a rollout is under way
        (run.folder / SHARDS).rmdir()


def take_in(shard: Path, run: Run, patience: float = PATIENCE) -> set[str]:
    """Journal and book in `run` what the shard's worker has ended and spent and did not tell: those attempts; the shard goes.

    Taking in the same again changes nothing. Of an attempt that another worker has made meanwhile the cost alone is taken.
    Raises AgentevolveError if the worker is still at it after `patience` seconds, or for a damaged shard.
    """
    new: set[str] = set()
    with closing(_opened(shard, patience)) as made:  # opening it has journalled there what was under way
        for one in made.attempts().values():
            known = run.attempts().get(one.id)
            if known is None:
                run.add(one)
                run.budget.book(one.usage)
                new.add(one.id)
            elif known != one:
                charge(run, f"{one.id}/{shard.name}.twice", one.usage)
        for name, fact in made.facts.items():
            take_fact(run, shard.name, name, fact)
    shutil.rmtree(shard, ignore_errors=True)
    return new


def take_fact(run: Run, shard: str, name: str, fact: object) -> None:
    """Take in what a shard says besides attempts: what something has cost that did not end, what a backend has refused."""
    if name.startswith(LOST):
        what, _, number = name.removeprefix(LOST).rpartition("/")
        charge(run, f"{what}/{shard}.{number}", Usage.model_validate(dict(fact)["usage"]))  # type: ignore[call-overload]
    elif name.startswith(MANNER):
        run.once(name, lambda: fact)


def charge(run: Run, name: str, usage: Usage) -> None:
    """Journal and book, once, what was spent on what did not end."""
    if LOST + name not in run.facts and usage != Usage():
        run.once(LOST + name, lambda: {"usage": usage.model_dump()})
        run.budget.book(usage)


def _opened(shard: Path, patience: float) -> Run:
    end = time.monotonic() + patience
    while True:
        try:
            return Run(shard, quiet=True)
        except AgentevolveError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
