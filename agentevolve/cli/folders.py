"""Which folder is meant: a new one, a run with its seeds, a memory."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from agentevolve.protocols import AgentevolveError


def new_folder(name: str) -> Path:
    """A folder under runs/ that is not there yet."""
    place = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    return writable(place if not place.exists() else place.with_name(f"{place.name}-{time.time_ns() % 1000}"))


def named_folder(text: str) -> Path:
    """The folder that an option names. Raises AgentevolveError where none can be."""
    if not text:
        raise AgentevolveError("--out is empty; name a folder")
    return writable(Path(text))


def writable(place: Path) -> Path:
    """The folder, there or not. Raises AgentevolveError, before anything is done for it, where it cannot be made or written."""
    try:
        why = _hindrance(place)
    except OSError as error:
        why = error.strerror or str(error)
    if why:
        raise AgentevolveError(f"{place}: cannot be a run's folder: {why}")
    return place


def _hindrance(place: Path) -> str:
    """Why there can be no folder that is written in; empty if there can. Raises OSError for a name that the disk cannot have."""
    there = next(folder for folder in (place, *place.parents) if os.path.lexists(folder))
    if not there.exists():
        return f"{there} is a link to nothing"
    if not there.is_dir():
        return f"{there} is not a folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{there} cannot be written"
    for named in (place, *(there / part for part in place.relative_to(there).parts)):
        with contextlib.suppress(FileNotFoundError):
            os.stat(named)
    return ""
