"""The policies of a run: the weights that it has learnt, from what and by what, what the gate said of them, what was learnt on
from them; and which one is in place, also when somebody has taken an earlier one back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from agentevolve.evaluate.stats import LEVEL
from agentevolve.given import shown
from agentevolve.local.adapter import INFO, AdapterInfo, adapters_of, read_adapter
from agentevolve.local.likeness import Likeness, likeness
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Outcome, Record
from agentevolve.run.folder import SPENT, Run, read_run, seeds

GATE = "gate "
TRAINED = f"{SPENT}train/"  # the facts that say what a training has cost, in the order of the trainings
BACK = "taken back "  # the facts that say which earlier policy somebody has put in place, after which round
BEGUN = "begun "  # the facts that say with which policy a round of an asynchronous run has begun, and what was made ahead of it


class Told(Protocol):
    """What a run tells of its measurements: the whole run (run/folder.py), or the inspector's index of it."""

    @property
    def folder(self) -> Path:
        """Where it lies."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """The journalled facts by name; those of measurements, of the gate and of memory are enough."""

    def evaluations(self) -> Mapping[str, Mapping[str, list[str]]]:
        """The finished evaluations by name: ids by arm."""

    def outcomes(self, ids: Iterable[str]) -> Mapping[str, Outcome]:
        """Those of these attempts that are there, by id, perhaps others too."""


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


class Unlike(Record):
    """Two adapters beside each other: what of settings differs (both values), whose rows and attempts are in one alone, and how
    like their changes to the weights are (none if they belong to different bases).
    """

    names: tuple[str, str]
    base: tuple[str, str]
    settings: dict[str, tuple[str, str]]
    rows: tuple[int, int, int]
    trajectories: tuple[tuple[str, ...], tuple[str, ...]]
    loss_last: tuple[float, float]
    verdicts: tuple[tuple[str, ...], tuple[str, ...]]
    likeness: Likeness | None


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
    return [one for folder in folders for one in learnt_of(read_run(folder), f"{folder.name}/" if folders != [place] else "")]


def rounds_of(run: Told) -> int:
    """How many rounds the gate has ended."""
    return sum(name.startswith(GATE) for name in run.facts)


def taken_back(run: Told, number: int) -> int | None:
    """The round whose policy somebody has put back in place after round `number` (0: the base) last; None if nobody has."""
    found = [fact["to"] for name, fact in dict(run.facts).items() if name.startswith(f"{BACK}{number}/")]
    return found[-1] if found else None


def stale(begun: Mapping[str, Any]) -> int:
    """How many of the attempts that were made ahead of a round are by another policy than the one that it began with."""
    return sum(n for round, n in begun["ahead"].items() if int(round) != begun["round"])


def take_back(place: Path, to: int, why: str) -> list[str]:
    """Let the policy that was in place after round `to` (0: the base) be in place from now on, in every run at `place`.

    The journal keeps that, and `why`; nothing is lost. What it says, a line a run. Raises AgentevolveError when there is no such
    round, or the next one has begun with the policy that is in place.
    """
    folders = seeds(place)
    for folder in folders:
        _check_back(read_run(folder), to)
    return [_take_back(folder, to, why) for folder in folders]


def _take_back(folder: Path, to: int, why: str) -> str:
    run = Run(folder, quiet=True)
    try:
        _check_back(run, to)
        last = rounds_of(run)
        number = sum(name.startswith(f"{BACK}{last}/") for name in run.facts)
        run.once(f"{BACK}{last}/{number}", lambda: {"to": to, "why": why})
        # what was made ahead of the next round is by a policy that was taken back: it is made again by the one in place
        run.again(f"taken back {last}", [one.id for one in run.outcomes_of(lambda phase: _of_round(phase, last + 1), lost=True)])
    finally:
        run.close()
    return f"{folder}: {back_said(last, to, why)}"


def back_said(after: int, to: int, why: str) -> str:
    """One line on a policy that was taken back after a round."""
    what = f"what was in place after round {to}" if to else "the base"
    return f"taken back after round {after}: {what} is in place" + (f" ({why})" if why else "")


def _check_back(run: Run, to: int) -> None:
    done = rounds_of(run)
    if not 0 <= to < done:
        known = f"0 (the base) to {done - 1}" if done else "none, no round has ended"
        raise AgentevolveError(f"{run.folder}: no earlier round {to}; known: {known}")
    ahead = f"{BEGUN}1" in run.facts  # then attempts of a round may be there before it begins
    if f"{BEGUN}{done + 1}" in run.facts or (not ahead and any(_of_round(one, done + 1) for one in run.phases(lost=True))):
        raise AgentevolveError(
            f"{run.folder}: round {done + 1} has begun with the policy in place after round {done}; end it first, with --resume"
        )


def _of_round(phase: str, number: int) -> bool:
    return phase.startswith(f"{number}/")


def adapter_named(place: Path, name: str) -> Learnt:
    """The adapter of that name. Raises AgentevolveError, with the known ones, where there is none."""
    found = {one.name: one for one in learnt(place)}
    if name not in found:
        raise AgentevolveError(f"{place}: no adapter {shown(name)}; known: {', '.join(found) or 'none, nothing was trained'}")
    return found[name]


def unlike(one: Learnt, other: Learnt) -> Unlike:
    """In what two adapters differ; `rows` are those of the first alone, of both, of the second alone."""
    mine, theirs = read_adapter(Path(one.path)), read_adapter(Path(other.path))
    first, second = set(mine.examples), set(theirs.examples)
    told, others = mine.settings.model_dump(), theirs.settings.model_dump()
    return Unlike(
        names=(one.name, other.name),
        base=(mine.base, theirs.base),
        settings={name: (str(told[name]), str(others[name])) for name in told if told[name] != others[name]},
        rows=(len(first - second), len(first & second), len(second - first)),
        trajectories=(_without(one, other), _without(other, one)),
        loss_last=(mine.loss_last, theirs.loss_last),
        verdicts=(_said(one), _said(other)),
        likeness=likeness(Path(one.path), Path(other.path)) if mine.base == theirs.base else None,
    )


def _said(one: Learnt) -> tuple[str, ...]:
    return tuple(verdict.said for verdict in one.verdicts)


def _without(one: Learnt, other: Learnt) -> tuple[str, ...]:
    gone = set(other.trajectories)
    return tuple(id for id in one.trajectories if id not in gone)


def learnt_of(run: Told, seed: str) -> Iterator[Learnt]:
    """The adapters of one run, oldest first; `seed` goes before their names."""
    trained = [name for name in list(run.facts) if name.startswith(TRAINED)]  # in a copy of a run all files are of one age
    order = {name: place for place, name in enumerate(trained)}

    def age(one: tuple[Path, AdapterInfo]) -> tuple[int, int]:
        return order.get(TRAINED + one[0].name, len(order)), (one[0] / INFO).stat().st_mtime_ns

    found, verdicts = sorted(adapters_of(run.folder), key=age), _verdicts(run)
    for path, info in found:
        yield Learnt(
            name=f"{seed}{path.name}",
            path=str(path),
            identity=info.identity,
            base=info.base,
            start=info.start,
            objective="brought" if info.brought else "merge" if info.parts else info.settings.objective,
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


def _verdicts(run: Told) -> dict[str, list[Verdict]]:
    """By adapter what the gate said of the arms that acted with it; those that were not up for promotion have no verdict."""
    found: dict[str, list[Verdict]] = {}
    measured = run.evaluations()
    for name, fact in run.facts.items():
        if not name.startswith(GATE):
            continue
        evaluation = name.removeprefix(GATE)
        for arm in fact["differences"]:
            first = next(iter(measured.get(evaluation, {}).get(arm, [])), "")
            one = run.outcomes([first]).get(first)
            adapter = one.policy.adapter if one else None
            if adapter:
                found.setdefault(adapter, []).append(verdict_of(fact, int(evaluation.partition("/")[0]), arm))
    return found
