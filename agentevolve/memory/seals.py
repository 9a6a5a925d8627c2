"""A word that files are as they were left: their sizes and times, signed with the user's key, so that nobody else can give it."""

from __future__ import annotations

import hmac
import json
from pathlib import Path
from typing import Any

from agentevolve.memory.provenance import signed

CLOSED = "closed"


def seal(folder: Path, said: dict[str, Any]) -> None:
    """Write down in `folder` what is said of it, signed."""
    text = json.dumps(said, sort_keys=True)
    scratch = folder / f"{CLOSED}.partial"
    scratch.write_text(f"{signed(text)}\n{text}\n", "utf-8")
    scratch.replace(folder / CLOSED)


def sealed(folder: Path) -> dict[str, Any] | None:
    """What this user's key has signed of `folder`; None where it has signed nothing."""
    try:
        signature, _, text = (folder / CLOSED).read_text("utf-8").removesuffix("\n").partition("\n")
        return dict(json.loads(text)) if hmac.compare_digest(signature.encode(), signed(text).encode()) else None
    except (OSError, ValueError):
        return None


def stamps(folder: Path) -> dict[str, list[int]]:
    """The size and the time of the last change of each file in `folder` but its seal."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != CLOSED]
    return {str(path.relative_to(folder)): stamp(path) for path in found}


def stamp(path: Path) -> list[int]:
    """The size and the time of the last change of a file; nothing if it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]
