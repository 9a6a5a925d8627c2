"""Packages that an extra cannot bring, as what they declare to need is large or clashes: wheels fetched alone at first use."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from agentevolve.wheels import importable

_lock = threading.Lock()
_places: dict[str, Path] = {}


def fetched(wheel: str, sha256: str, size: int) -> Path:
    """The folder of the unpacked wheel, which is on `sys.path` from then on, before the packages that are installed.

    Raises AgentevolveError when it is not in the cache and cannot be fetched.
    """
    with _lock:  # environments in many threads, one download
        if wheel not in _places:
            _places[wheel] = importable(wheel, sha256, size)
            sys.path.insert(0, str(_places[wheel]))
        return _places[wheel]
