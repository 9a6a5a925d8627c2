"""Attempts that were made elsewhere, as a run's: rows of TRL's forms, trajectories of Harbor's (ATIF).

They are attempts at train tasks of a world of their own, "imported": `distill` learns from those that count as solved. What says
no reward does: who chose it as training data vouches for it. Each says in its task's data which line of which file it was, and
the journal which files were taken in; what it cost elsewhere is no cost of this run. Nothing is taken in unless all of it can be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from agentevolve.doors.imports import atif, trl
from agentevolve.doors.imports.chats import Chat, attempts_alone, lived
from agentevolve.given import shown
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Trajectory
from agentevolve.run.folder import Run

FORMS: dict[str, Callable[[bytes, Path], Iterator[Chat]]] = {"trl": trl.chats, "atif": atif.chats}


class Taken(NamedTuple):
    """What an import did: attempts taken in, how many of them count as solved, and those that were there already."""

    added: int
    solved: int
    known: int


def take_in(files: Sequence[Path], form: str, out: Path) -> Taken:
    """Add the attempts in the files to the run of imported ones in the folder `out`, there or new.

    Raises AgentevolveError, naming file, line and field, for what is not of that form; then nothing is added.
    """
    if form not in FORMS:
        raise AgentevolveError(f"--as: {shown(form)} is not known; known: {', '.join(FORMS)}")
    facts: dict[str, dict[str, object]] = {}
    found: dict[str, Trajectory] = {}
    for path in files:
        data = _read(path)
        about = {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "as": form}
        made = [lived(chat, about) for chat in attempts_alone(list(FORMS[form](data, path)))]
        if not made:
            raise AgentevolveError(f"{path}: there is no attempt in it")
        facts[f"imported {about['sha256'][:16]}"] = about | {"attempts": len(made)}
        found |= {one.id: one for one in made}
    return _add(found, facts, out)


def _add(found: dict[str, Trajectory], facts: dict[str, dict[str, object]], out: Path) -> Taken:
    run = Run(out, quiet=True)
    try:
        run.about("import", True)
        new = [one for one in found.values() if one.id not in run.trajectories]
        for one in new:
            run.add(one)
        for name, fact in facts.items():
            run.once(name, lambda fact=fact: fact)  # type: ignore[misc]
    finally:
        run.close()
    return Taken(len(new), sum(one.solved for one in new), len(found) - len(new))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AgentevolveError(f"{path}: cannot be read: {error.strerror or error}") from None
