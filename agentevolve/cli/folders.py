"""Which folder is meant: a new one, a run with its seeds, a memory."""

from __future__ import annotations

import time
from pathlib import Path

from agentevolve.protocols import AgentevolveError
from agentevolve.run.folder import JOURNAL


def new_folder(name: str) -> Path:
    """A folder under runs/ that is not there yet."""
    place = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    return place if not place.exists() else place.with_name(f"{place.name}-{time.time_ns() % 1000}")


def seeds(place: Path) -> list[Path]:
    """The folders of the runs at `place`: itself, or one for each seed. Raises AgentevolveError if there is none."""
    if (place / JOURNAL).is_file():
        return [place]
    found = sorted(folder for folder in place.glob("seed-*") if (folder / JOURNAL).is_file())
    if not found:
        raise AgentevolveError(f"{place}: not a run: there is no {JOURNAL} in it")
    return found


def memory_folder(place: Path) -> Path:
    """The memory at `place`, a memory folder or a run that has one."""
    for folder in (place, place / "memory"):
        if (folder / "memory.json").is_file():
            return folder
    raise AgentevolveError(f"{place}: neither a memory folder nor a run with one: there is no memory.json")
