"""How compared methods stand, made again from the journals of their runs: of a comparison under way as much as is through."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

from agentevolve.config import Comparison, read_comparison
from agentevolve.evaluate import Arm, Learnt, Standing, curves, standings
from agentevolve.loop.compare import CONFIG, CONTROLS, ROUND, rounds_of, taught_in
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Trajectory, Turn
from agentevolve.run.folder import Run, journal_of, read_run
from agentevolve.view.figures import Brief, svg
from agentevolve.view.places import runs_of
from agentevolve.view.rows import number_of

NAMES = ("no learning", "random", "oracle", "learnt", "shuffled memory", "empty memory", "guard")
ARMS = {name.replace(" ", "-"): name for name in NAMES}  # by how a phase's name ends
FIGURES = ("id", "task", "policy", "phase", "sample", "seed", "reward", "end", "error", "seconds", "asked", "forgotten")
EMPTY = Turn(action="", observation="")


class Part(NamedTuple):
    """One run of a comparison: what its standings are made from, and whether all its rounds have ended."""

    place: Path
    learnt: Learnt
    ended: bool


class Compared(NamedTuple):
    """A comparison as far as it is: every run that was begun, those that are through, and the standings of those."""

    config: Comparison
    parts: list[Part]
    through: list[Part]
    rows: list[Standing]


class Comparisons:
    """The comparisons that were asked for, each run read again when its journal has changed. Safe to use from several threads."""

    def __init__(self) -> None:
        self._parts: dict[Path, tuple[Hashable, Part]] = {}
        self._lock = threading.Lock()

    def found(self, place: Path) -> Compared:
        """The comparison in the folder. Raises AgentevolveError with one line where it, or a run of it, is damaged."""
        with self._lock:
            return self._read(place)

    def state(self, place: Path) -> Hashable:
        """What changes when the comparison or one of its runs does."""
        runs = [(str(run), journal_of(run).written()) for run in runs_of(place)]
        return (_written(place / CONFIG), *runs)

    def _read(self, place: Path) -> Compared:
        config = read_comparison(place / CONFIG)
        parts = [self._part(run, config) for run in runs_of(place) if wanted(run, config)]
        through = so_far(parts, config)
        rows = standings([part.learnt for part in through], config.held.samples) if through else []
        return Compared(config, parts, through, rows)

    def _part(self, place: Path, config: Comparison) -> Part:
        state = journal_of(place).written()
        known = self._parts.get(place)
        if known is None or known[0] != state:
            known = state, part_of(read_run(place), config)
            self._parts[place] = known
        return known[1]


def curve(found: Compared) -> bytes:
    """Its learning curves as SVG. Raises AgentevolveError where no method is through yet."""
    if not any(row.difference for row in found.rows):
        raise AgentevolveError("no method is through yet")
    return svg(lambda path: curves(found.rows, path, unit=unit(found.config)))


def unit(config: Comparison) -> str:
    """What the curves are drawn against: the first limit of the budget."""
    return next(name for name, value in config.budget.model_dump().items() if value is not None)


def part_of(run: Run, config: Comparison) -> Part:
    """What the journal of one run of a comparison says."""
    place, run.workers = run.folder, config.workers.count
    rounds = [fact for name, fact in run.facts.items() if name.startswith(ROUND)]
    ended = len(rounds) == config.rounds or any(fact["unfit"] for fact in rounds)
    seed, tasks = number_of(place.parent.name), place.parent.parent.name
    return Part(place, Learnt(tasks, seed, place.name, _arms(run, config.split), {}, rounds_of(run), taught_in(run)), ended)


def so_far(parts: Sequence[Part], config: Comparison) -> list[Part]:
    """The runs that can be held against each other: of each task set as many methods as are through with some seed, and the
    seeds with which all of these are.
    """
    found = []
    for tasks in sorted({part.learnt.tasks for part in parts}, key=lambda name: _place(name, config)):
        by_seed = [_through(parts, tasks, seed, config) for seed in config.seeds]
        names = _methods(max(by_seed, key=len))
        found += [part for of_seed in by_seed if names <= _methods(of_seed) for part in of_seed if part.learnt.method in names]
    return found


def _methods(parts: Sequence[Part]) -> set[str]:
    return {part.learnt.method for part in parts}


def _through(parts: Sequence[Part], tasks: str, seed: int, config: Comparison) -> list[Part]:
    """The controls and the methods that are through, in the order in which they were asked for; none without the controls."""
    there = {part.learnt.method: part for part in parts if (part.learnt.tasks, part.learnt.seed) == (tasks, seed)}
    controls = there.pop(CONTROLS, None)
    if controls is None or not _controlled(controls.learnt, bool(there) or not config.guard):
        return []
    methods = [there[one.name] for one in config.methods if one.name in there]
    return [controls, *(part for part in methods if _measured(part, controls.learnt))]


def _controlled(controls: Learnt, guarded: bool) -> bool:
    """Whether all controls were measured; of the guard only what comes after it tells."""
    counts = {len(controls.arm(name)) for name in NAMES[:3]}
    return guarded and len(counts) == 1 and counts != {0}


def _measured(part: Part, controls: Learnt) -> bool:
    """Whether a method has learnt all that it will, and was measured after each round as no learning was."""
    learnt, guard = part.learnt, len(part.learnt.arm("guard"))
    counts = [len(arm.attempts) for arm in learnt.arms if arm.name != "guard"]
    after = sum(arm.name == "learnt" for arm in learnt.arms)
    whole = after == len(learnt.rounds) and set(counts) <= {len(controls.arm("no learning"))}
    return part.ended and whole and guard == len(controls.arm("guard"))


def _arms(run: Run, split: str) -> list[Arm]:
    """The measured arms, those after a round in its order."""
    found: dict[tuple[str, str], list[Trajectory]] = {}
    for one in run.trajectories.values():
        when, _, rest = one.phase.partition("/")
        of_split, _, name = rest.partition("/")
        if of_split == split and name in ARMS and (when.isdecimal() or when == "end"):
            found.setdefault((when, ARMS[name]), []).append(_brief(one))
    return [Arm(name, when, made) for (when, name), made in sorted(found.items(), key=lambda one: _order(one[0][0]))]


def _order(when: str) -> tuple[bool, int]:
    return when == "end", 0 if when == "end" else int(when)


def _brief(one: Trajectory) -> Brief:
    """The attempt without its texts."""
    return Brief.model_construct(
        **{name: getattr(one, name) for name in FIGURES},
        turns=(EMPTY,) * len(one.turns),
        spent=one.usage,
        shortened=one.cut,
        _fields_set=None,
    )


def wanted(run: Path, config: Comparison) -> bool:
    """Whether the run is one of those that the comparison asks for, as it now is."""
    names = {CONTROLS, *(one.name for one in config.methods)}
    return run.name in names and number_of(run.parent.name) in config.seeds


def _place(tasks: str, config: Comparison) -> tuple[int, str]:
    """Where a task set comes: as asked for, those named by a file's path last."""
    return (config.tasks.index(tasks) if tasks in config.tasks else len(config.tasks)), tasks


def _written(path: Path) -> Hashable:
    about = path.stat()
    return about.st_ino, about.st_size, about.st_mtime_ns
