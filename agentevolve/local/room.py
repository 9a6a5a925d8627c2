"""Whether a model fits into this machine's memory: asked before anything is read, hashed or paid for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from agentevolve.protocols import AgentevolveError


def size(weights: Iterable[Path]) -> int:
    """The bytes of these files."""
    return sum(path.stat().st_size for path in weights)


def check_room(model: str, need: float, what: str) -> None:
    """Raise AgentevolveError, with both figures, if `need` bytes, at the least, are more memory than the machine has."""
    import psutil

    have = psutil.virtual_memory().total
    if need > have:
        raise AgentevolveError(
            f"{model}: takes at least {need / 1e9:,.1f} GB of memory {what}; this machine has {have / 1e9:,.1f} GB"
        )
