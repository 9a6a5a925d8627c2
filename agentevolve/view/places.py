"""The runs, comparisons and memories at or below a folder, by name: nothing else can be asked for, nothing outside it is read."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from agentevolve.config import read_config
from agentevolve.loop.compare import CONFIG
from agentevolve.memory.folder import ABOUT, INDEX
from agentevolve.memory.folder import JOURNAL as ENTRIES
from agentevolve.protocols import AgentevolveError
from agentevolve.run.checkpoint import CHECKPOINT
from agentevolve.run.folder import JOURNAL, VIEW, journal_of, started, written
from agentevolve.run.lock import LOCK
from agentevolve.view.index import ReadIndex
from agentevolve.view.rows import SEED

DEEP = 3  # folders below the given one that are looked into
JOURNALS = "journal*.jsonl"  # the files of a run's journal
SEVERAL = 500  # runs that are listed
HERE = "run"  # the name of what is the given folder itself, where that has none
State = Literal["under way", "stopped on the way", "at rest"]


class Places:
    """The runs at or below `root`, and the memories that belong to none, each with its read index, opened when it is first asked
    for; and the comparisons. Raises AgentevolveError when there is nothing of all that.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._lock = threading.Lock()
        self._open: dict[str, ReadIndex] = {}
        self._names: dict[str, Path] = {}
        self._compared: dict[str, Path] = {}
        self._memories: dict[str, Path] = {}
        self.unread: set[str] = set()  # runs that somebody reads ahead, and has not read yet
        if not self.names() and not self._compared and not self._memories:
            raise AgentevolveError(f"{root}: no run or memory in it or below: there is no {JOURNAL} and no {ABOUT}")

    def names(self) -> dict[str, Path]:
        """The runs that are there now, by name, those of comparisons among them."""
        found = {place: what for place, what in self._found()}
        compared = [place for place, what in found.items() if what == "comparison"]
        alone = [place for place, what in found.items() if what == "memory"]
        runs = [run for place in found if place not in alone for run in (runs_of(place) if place in compared else [place])]
        self._compared = {_name(place, self.root): place for place in sorted(compared)}
        self._memories = {_name(place, self.root): place for place in sorted(alone)}
        self._names = dict(sorted((_name(place, self.root), place) for place in runs[:SEVERAL]))
        return self._names

    def comparisons(self) -> dict[str, Path]:
        """The comparisons that are there now, by name."""
        self.names()
        return self._compared

    def memories(self) -> dict[str, Path]:
        """The memories that are there now and belong to no run, by name."""
        self.names()
        return self._memories

    def comparison(self, name: str) -> Path:
        """The folder of the comparison of that name. Raises AgentevolveError where there is none, or it leads elsewhere."""
        if name not in self._compared and name not in self.comparisons():
            raise AgentevolveError(f"there is no comparison {name[:200]!r}")
        place = self._compared[name]
        self._stays(place / CONFIG)
        for run in runs_of(place):
            self._within(run)
        return place

    def comparison_of(self, run: Path) -> str:
        """The name of the comparison that the run belongs to; empty where it belongs to none."""
        return next((name for name, place in self._compared.items() if run.is_relative_to(place)), "")

    def name_of(self, place: Path) -> str:
        """The name of the run or comparison at `place`."""
        return _name(place, self.root)

    def index(self, name: str) -> ReadIndex:
        """The index of the run or memory of that name, up to date.

        Raises AgentevolveError where there is none, or it leads elsewhere.
        """
        if name not in self._names and name not in self._memories and name not in self.names() and name not in self._memories:
            raise AgentevolveError(f"there is no run {name[:200]!r}")
        place = self._names.get(name) or self._memories[name]
        self._within(place)
        with self._lock:
            if name not in self._open:
                self._open[name] = ReadIndex(place)
        index = self._open[name]
        index.update()
        return index

    def grown(self, name: str) -> str:
        """What changes when a journal of what has that name grows, any where it is nobody's, or one more run was read."""
        sizes = []
        for place in self._named(name):
            for folder in started(place):
                with contextlib.suppress(OSError, AgentevolveError):
                    sizes.append(journal_of(folder).written()[1])
            with contextlib.suppress(OSError):
                sizes.append((place / ENTRIES).stat().st_size)
        return f"{len(self.unread)}-{len(sizes)}-{sum(sizes)}"

    def close(self) -> None:
        """Give back what is held."""
        with self._lock:
            for index in self._open.values():
                index.close()
            self._open.clear()

    def _named(self, name: str) -> list[Path]:
        """The runs that a name stands for; all where it is none's."""
        if name in self._compared:
            return runs_of(self._compared[name])
        known = self._names | self._memories
        return [known[name]] if name in known else list(known.values())

    def _found(self) -> Iterator[tuple[Path, Literal["run", "comparison", "memory"]]]:
        """Runs, comparisons and memories, not their seeds: a folder below one of them is not looked into."""
        ahead, count = [(self.root, 0)], 0
        while ahead and count < SEVERAL:
            folder, deep = ahead.pop(0)
            what: dict[Literal["run", "comparison", "memory"], bool] = {
                "run": bool(started(folder)),
                "comparison": (folder / CONFIG).is_file(),
                "memory": (folder / ABOUT).is_file() and (folder / ENTRIES).is_file(),
            }
            if one := next((one for one, is_it in what.items() if is_it), None):
                count += 1
                yield folder, one
            elif deep < DEEP:
                ahead += [(one, deep + 1) for one in _folders(folder)]

    def _within(self, place: Path) -> None:
        """Raise AgentevolveError when a file that would be read is a link out of the given folder."""
        self._stays(place)
        for path in _read(place):
            if path.is_symlink():
                self._stays(path)

    def _stays(self, path: Path) -> None:
        if not path.resolve().is_relative_to(self.root):
            raise AgentevolveError(f"{path}: leads out of {self.root}; it is not read")


def runs_of(comparison: Path) -> list[Path]:
    """The runs of a comparison that were begun: TASKS/seed-N/METHOD."""
    seeds = [seed for tasks in _folders(comparison) for seed in _folders(tasks) if SEED.fullmatch(seed.name)]
    return [run for seed in seeds for run in _folders(seed) if (run / JOURNAL).is_file()]


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
    """When a journal of the run, or the memory, was last written, in seconds since 1970."""
    runs = started(place)
    return max(map(written, runs)) if runs else (place / ENTRIES).stat().st_mtime


def _read(place: Path) -> Iterator[Path]:
    """What is read of a run or memory, and the index that is written."""
    yield from (place, place / VIEW, place / ENTRIES, place / ABOUT, place / "closed", place / INDEX)
    for folder in started(place):
        yield from (folder, folder / CHECKPOINT, *sorted(folder.glob(JOURNALS)))
        yield from (folder / "memory", folder / "memory" / ENTRIES, folder / "memory" / ABOUT)
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
