"""The runs and memories at or below a folder, by name: nothing else can be asked for, and nothing outside the folder is read."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from agentevolve.config import read_config
from agentevolve.memory.folder import ABOUT
from agentevolve.memory.folder import JOURNAL as ENTRIES
from agentevolve.protocols import AgentevolveError
from agentevolve.run.folder import JOURNAL, VIEW, started
from agentevolve.run.lock import LOCK
from agentevolve.view.index import ReadIndex

DEEP = 3  # folders below the given one that are looked into
SEVERAL = 500  # runs that are listed
HERE = "run"  # the name of a run that is the given folder itself
State = Literal["under way", "stopped on the way", "at rest"]


class Places:
    """The runs at or below `root`, each with its read index, opened when it is first asked for.

    Raises AgentevolveError when there is none.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._lock = threading.Lock()
        self._open: dict[str, ReadIndex] = {}
        self._names: dict[str, Path] = {}
        self.unread: set[str] = set()  # runs that somebody reads ahead, and has not read yet
        if not self.names():
            raise AgentevolveError(f"{root}: no run in it or below: there is no {JOURNAL}")

    def names(self) -> dict[str, Path]:
        """The runs that are there now, by name."""
        found = dict(sorted((_name(place, self.root), place) for place in self._runs()))
        self._names = found
        return found

    def index(self, name: str) -> ReadIndex:
        """The index of the run of that name, up to date. Raises AgentevolveError where there is none, or it leads elsewhere."""
        if name not in self._names and name not in self.names():
            raise AgentevolveError(f"there is no run {name[:200]!r}")
        place = self._names[name]
        self._within(place)
        with self._lock:
            if name not in self._open:
                self._open[name] = ReadIndex(place)
        index = self._open[name]
        index.update()
        return index

    def grown(self, name: str) -> str:
        """What changes when a journal of that run grows, of any run where none is named, or one more of them was read."""
        sizes = []
        for place in [self._names[name]] if name in self._names else list(self._names.values()):
            for path in (place / JOURNAL, *place.glob(f"seed-*/{JOURNAL}")):
                with contextlib.suppress(OSError):
                    sizes.append(path.stat().st_size)
        return f"{len(self.unread)}-{len(sizes)}-{sum(sizes)}"

    def close(self) -> None:
        """Give back what is held."""
        with self._lock:
            for index in self._open.values():
                index.close()
            self._open.clear()

    def _runs(self) -> Iterator[Path]:
        """Runs, not their seeds: a folder below a run is not looked into."""
        ahead, count = [(self.root, 0)], 0
        while ahead and count < SEVERAL:
            folder, deep = ahead.pop(0)
            if started(folder):
                count += 1
                yield folder
            elif deep < DEEP:
                ahead += [(one, deep + 1) for one in _folders(folder)]

    def _within(self, place: Path) -> None:
        """Raise AgentevolveError when a file that would be read is a link out of the given folder."""
        for path in _read(place):
            if not path.resolve().is_relative_to(self.root):
                raise AgentevolveError(f"{path}: leads out of {self.root}; it is not read")


def state(place: Path) -> State:
    """Whether somebody writes in the run: a lock file names the process that does, or that was killed there."""
    import psutil

    held = [folder / LOCK for folder in (place, *started(place))]
    there = [path for path in held if path.is_file() and not path.is_symlink()]
    if not there:
        return "at rest"
    said = [path.read_bytes()[:20].decode("ascii", "replace") for path in there]
    return "under way" if any(one.isdecimal() and psutil.pid_exists(int(one)) for one in said) else "stopped on the way"


def settings(place: Path) -> dict[str, Any]:
    """What was asked for, as `config.yaml` says; empty where it says nothing that this version knows."""
    for folder in (place, *started(place)):
        path = folder / "config.yaml"
        if path.is_file() and not path.is_symlink():
            try:
                return read_config(path).model_dump(mode="json")
            except AgentevolveError:
                return {}
    return {}


def changed(place: Path) -> float:
    """When a journal of the run was last written, in seconds since 1970."""
    return max(folder.joinpath(JOURNAL).stat().st_mtime for folder in started(place))


def _read(place: Path) -> Iterator[Path]:
    """What is read of a run, and the index that is written."""
    yield from (place, place / VIEW)
    for folder in started(place):
        yield from (folder, folder / JOURNAL, folder / "memory", folder / "memory" / ENTRIES, folder / "memory" / ABOUT)
        yield from (folder / "memory" / "closed", folder / "adapters")
        if (folder / "adapters").is_dir():
            for adapter in (folder / "adapters").iterdir():
                yield from (adapter, adapter / "agentevolve.json")


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as found:
            return sorted(Path(one.path) for one in found if one.is_dir(follow_symlinks=False) and not one.name.startswith("."))
    except OSError:
        return []


def _name(place: Path, root: Path) -> str:
    """The path below the root on one level: what an address has no room for is written otherwise."""
    return "~".join(part.replace("~", "~~") for part in place.relative_to(root).parts) or place.name or HERE
