"""The weights that a run has learnt: from what, by what, what the gate said of them, and what was learnt on from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentevolve.evaluate.stats import LEVEL
from agentevolve.given import shown
from agentevolve.local.adapter import INFO, AdapterInfo, adapters_of
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Record
from agentevolve.run.folder import Run, read_run, seeds

GATE = "gate "


class Verdict(Record):
    """What the gate said of an arm with these weights after a round: the paired difference, in success, to what was in place."""

    round: int
    arm: str
    promoted: bool
    over: str
    mean: float
    low: float
    high: float
    level: float

    @property
    def said(self) -> str:
        """In words."""
        what = "promoted" if self.promoted else "not promoted"
        return f"round {self.round}, {self.arm}: {what} ({self.change})"

    @property
    def change(self) -> str:
        """The difference in words."""
        points = f"{100 * self.mean:+.0f} points [{100 * self.low:+.0f}, {100 * self.high:+.0f}]"
        return f"{points} over {self.over}, {100 * self.level:.4g}% interval"


class Learnt(Record):
    """An adapter of a run, its folder `path`; its name begins with that of its seed's folder where there are several seeds.

    `base`, `identity` and `start` are hashes of weights: what it was trained on, its own, and the adapter that it went on from.
    `children` are adapters of the run that went on from it or were merged from it.
    """

    name: str
    path: str
    identity: str
    base: str
    start: str | None
    objective: str
    rows: int
    trajectories: tuple[str, ...]
    tokens: int
    loss_first: float
    loss_last: float
    verdicts: tuple[Verdict, ...]
    children: tuple[str, ...]


def learnt(place: Path) -> list[Learnt]:
    """The adapters of the run at `place`, of all its seeds, oldest first. Raises AgentevolveError for a broken one."""
    folders = seeds(place)
    return [one for folder in folders for one in _learnt(read_run(folder), f"{folder.name}/" if folders != [place] else "")]


def adapter_named(place: Path, name: str) -> Learnt:
    """The adapter of that name. Raises AgentevolveError, with the known ones, where there is none."""
    found = {one.name: one for one in learnt(place)}
    if name not in found:
        raise AgentevolveError(f"{place}: no adapter {shown(name)}; known: {', '.join(found) or 'none, nothing was trained'}")
    return found[name]


def _learnt(run: Run, seed: str) -> Iterator[Learnt]:
    found = sorted(adapters_of(run.folder), key=lambda one: (one[0] / INFO).stat().st_mtime_ns)
    verdicts = _verdicts(run)
    for path, info in found:
        yield Learnt(
            name=f"{seed}{path.name}",
            path=str(path),
            identity=info.identity,
            base=info.base,
            start=info.start,
            objective="merge" if info.parts else info.settings.objective,
            rows=len(info.examples),
            trajectories=info.sources,
            tokens=info.tokens,
            loss_first=info.loss_first,
            loss_last=info.loss_last,
            verdicts=tuple(verdicts.get(path.name, ())),
            children=tuple(f"{seed}{other.name}" for other, its in found if info.identity in _parents(its)),
        )


def _parents(info: AdapterInfo) -> set[str]:
    return {identity for identity in (info.start, *(part for part, _ in info.parts)) if identity}


def verdict_of(fact: dict[str, Any], number: int, arm: str) -> Verdict:
    """What the gate's fact of round `number` says of a candidate."""
    difference = fact["differences"][arm]
    return Verdict(
        round=number,
        arm=arm,
        promoted=fact["promoted"] == arm,
        over=fact["holder"],
        mean=difference["mean"],
        low=difference["low"],
        high=difference["high"],
        level=fact.get("level", LEVEL),
    )


def _verdicts(run: Run) -> dict[str, list[Verdict]]:
    """By adapter what the gate said of the arms that acted with it; those that were not up for promotion have no verdict."""
    found: dict[str, list[Verdict]] = {}
    measured, attempts = run.evaluations(), run.attempts()
    for name, fact in run.facts.items():
        if not name.startswith(GATE):
            continue
        evaluation = name.removeprefix(GATE)
        for arm in fact["differences"]:
            first = next(iter(measured.get(evaluation, {}).get(arm, [])), "")
            adapter = attempts[first].policy.adapter if first in attempts else None
            if adapter:
                found.setdefault(adapter, []).append(verdict_of(fact, int(evaluation.partition("/")[0]), arm))
    return found
