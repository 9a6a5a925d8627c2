"""A run's figures from its read index: the same reports and verdicts as the terminal's, without reading a single body."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from agentevolve.loop.compare import ROUND
from agentevolve.loop.policies import GATE
from agentevolve.loop.reports import Found, reports
from agentevolve.records import COSTS, PolicyStamp, Task, Trajectory, Turn, Usage
from agentevolve.run.folder import ALONE, EVALUATION, PHASES, evaluations, phase_of
from agentevolve.view.index import ReadIndex, Row, facts_of
from agentevolve.view.schema import USAGE

EMPTY = Turn(action="", observation="")
BY_FACT = {"ask": "refine", "spent": "update"}  # the phase that a fact's cost belongs to; of others their name says it


class Brief(Trajectory):
    """An attempt as the index knows it: all its figures, and none of its texts."""

    spent: Usage
    shortened: bool

    @property
    def usage(self) -> Usage:
        """What it cost."""
        return self.spent

    @property
    def cost(self) -> tuple[float, ...]:
        """The same as numbers, in the order of COSTS."""
        return tuple(getattr(self.spent, name) for name in COSTS)

    @property
    def cut(self) -> bool:
        """Whether something of what was recalled was shortened to fit."""
        return self.shortened


class Seed:
    """One seed of a run, as much of it as its reports are made from (loop/reports.py)."""

    def __init__(self, index: ReadIndex, seed: int) -> None:
        self.folder = index.folders[seed]
        self.facts: Mapping[str, Any] = facts_of(index, seed)
        self._index, self._seed = index, seed

    def evaluations(self) -> dict[str, dict[str, list[str]]]:
        """The finished evaluations by name, or the attempts of `agentevolve run`: ids by arm."""
        tried = (one for one in self.attempts().values() if one.phase == ALONE)
        return evaluations(self.facts, ((one.id, one.task.split, one.policy.model) for one in tried))

    def attempts(self) -> Mapping[str, Brief]:
        """The attempts that an evaluation names, or those of `agentevolve run`, by id."""
        return self._attempts

    def outcomes(self, ids: Iterable[str]) -> Mapping[str, Brief]:
        """Those of the attempts that are asked for, and all others that an evaluation names."""
        return self._attempts

    @cached_property
    def _attempts(self) -> dict[str, Brief]:
        wanted = {id for name, arms in self.facts.items() if name.startswith(EVALUATION) for ids in arms.values() for id in ids}
        found = self._index.ask("SELECT * FROM attempts WHERE seed = ? AND standing = 1 ORDER BY n", (self._seed,))
        stamps: dict[str, PolicyStamp] = {}
        return {one["id"]: brief(one, stamps) for one in found if one["id"] in wanted or one["phase"] == ALONE}


def brief(row: Row, stamps: dict[str, PolicyStamp]) -> Brief:
    """The attempt of a row; `stamps` are the policies read so far, by their text."""
    said = row["policy"]
    if said not in stamps:
        stamps[said] = PolicyStamp.model_validate_json(said)
    return Brief.model_construct(
        id=row["id"],
        task=Task.model_construct(id=row["task"], env=row["env"], split=row["split"]),
        policy=stamps[said],
        phase=row["phase"],
        sample=row["sample"],
        seed=row["luck"],
        turns=(EMPTY,) * row["turns"],
        reward=row["reward"],
        end=row["ended"],
        error=row["error"],
        seconds=row["took"],
        asked=tuple(json.loads(row["asked"])),
        forgotten=bool(row["forgotten"]),
        spent=Usage.model_construct(**{name: row[name] for name in USAGE}),
        shortened=bool(row["cut"]),
    )


def found(index: ReadIndex) -> Found:
    """The reports of the run, its seeds pooled; of a run under way those that are measured already, which `by_seed` counts.

    Raises AgentevolveError where nothing is measured.
    """
    seeds = [Seed(index, seed) for seed in sorted(index.folders)]
    return reports(index.place, [one for one in seeds if one.evaluations()] or seeds)


def curve(reports: Found) -> bytes:
    """The learning curve as SVG."""
    return svg(reports.draw)


def svg(draw: Callable[[Path], Path]) -> bytes:
    """What `draw` writes into an SVG file."""
    with tempfile.TemporaryDirectory(prefix="agentevolve-view-") as place:
        return draw(Path(place) / "picture.svg").read_bytes()


def costs(index: ReadIndex) -> dict[str, Usage]:
    """What each phase of all seeds has cost so far, what was made again included."""
    total = dict.fromkeys(PHASES, Usage())
    sums = ", ".join(f"sum({name}) AS {name}" for name in USAGE)
    for row in index.ask(f"SELECT phase, {sums} FROM attempts GROUP BY phase"):
        total[phase_of(row["phase"])] += Usage(**{name: row[name] for name in USAGE})
    for row in index.ask("SELECT name, usage FROM facts WHERE usage IS NOT NULL"):
        kind, _, rest = row["name"].partition("/")
        total[BY_FACT.get(kind) or phase_of(rest)] += Usage.model_validate_json(row["usage"])
    return total


def lost(index: ReadIndex) -> list[dict[str, Any]]:
    """Why attempts were lost: each reason with how often, the most frequent first."""
    query = "SELECT error AS reason, count(*) AS count FROM attempts WHERE standing = 1 AND outcome = 'lost' GROUP BY error"
    return [dict(row) for row in index.ask(f"{query} ORDER BY count DESC, error LIMIT 100")]


def progress(index: ReadIndex) -> list[dict[str, Any]]:
    """How far each seed is: rounds that the gate has ended, or a comparison's budget has, and attempts by outcome."""
    return [_progress(index, seed, folder) for seed, folder in sorted(index.folders.items())]


def _progress(index: ReadIndex, seed: int, folder: Path) -> dict[str, Any]:
    query = "SELECT outcome, count(*) AS count FROM attempts WHERE standing = 1 AND seed = ? GROUP BY outcome"
    outcomes = {row["outcome"]: row["count"] for row in index.ask(query, (seed,))}
    ended = "SELECT count(*) FROM facts WHERE seed = ? AND (substr(name, 1, ?) = ? OR substr(name, 1, ?) = ?)"
    [[rounds]] = index.ask(ended, (seed, len(GATE), GATE, len(ROUND), ROUND))
    return {
        "seed": seed,
        "name": folder.name,
        "rounds": rounds,
        "attempts": sum(outcomes.values()),
        "solved": outcomes.get("solved", 0),
        "lost": outcomes.get("lost", 0),
    }
