"""A run's figures as it goes, told to who keeps them. Nobody does until `keep` was called (doors/trackers.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

Figures = Mapping[str, float]  # by name
Keeper = Callable[[Path, int, Figures], None]
_keeper: Keeper | None = None


def keep(keeper: Keeper | None) -> None:
    """From now on tell `keeper` of all figures, by the run's folder and the round that they are of; None: tell nobody."""
    global _keeper
    _keeper = keeper


def figures(folder: Path, round: int, make: Callable[[], Figures]) -> bool:
    """Tell what `make` makes of the round that the run in `folder` has come to, if somebody keeps it; whether somebody does."""
    if _keeper:
        _keeper(folder, round, make())
    return _keeper is not None
