"""What a run has come to, from its journal: the reports of all arms, its seeds pooled, and what gate and memory have refused."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from agentevolve.evaluate import pooled_report
from agentevolve.evaluate.table import points
from agentevolve.loop.policies import BACK, BEGUN, GATE, Told, back_said, stale, verdict_of
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Difference, Outcome, Report
from agentevolve.run.folder import JOURNAL, REFUSED
from agentevolve.update.context import not_remembered

Arms = Mapping[str, list[str]]


class Found(NamedTuple):
    """A run's reports: tables by name, the verdicts of gate and memory as lines, and what the picture needs."""

    place: Path
    tables: dict[str, list[Report]]
    verdicts: list[str]
    rounds: dict[int, list[Report]]
    by_seed: list[dict[int, list[Report]]]

    def draw(self, path: Path) -> Path:
        """Draw the learning curve into `path`, PNG or SVG."""
        from agentevolve.evaluate import learning_curve

        rounds = self.rounds or {0: next(iter(self.tables.values()))}
        return learning_curve(rounds, path, seeds=self.by_seed if len(self.by_seed) > 1 else ())


@contextmanager
def _uncollected() -> Iterator[None]:
    """Nothing is looked through for cycles meanwhile: of a million figures, which have none, that is a third of reading them."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@_uncollected()
def reports(place: Path, runs: Sequence[Told]) -> Found:
    """The reports of the runs at `place`, one a seed, pooled. Raises AgentevolveError where nothing is measured."""
    measured = [(one, one.evaluations()) for one in runs]
    names = [name for name in measured[0][1] if all(name in found for _, found in measured)]
    if not names:
        raise AgentevolveError(f"{place}: nothing is measured yet; go on with: agentevolve evolve CONFIG --out {place} --resume")
    tables = {name: _pooled(name, measured) for name in names}
    rounds = {int(name.split("/")[0]): found for name, found in tables.items() if name.endswith("/val")}
    by_seed = [{int(name.split("/")[0]): _pooled(name, [one]) for name in names if name.endswith("/val")} for one in measured]
    return Found(place, tables, [line for one in runs for line in verdicts(one, len(runs) > 1)], rounds, by_seed)


def verdicts(run: Told, named: bool) -> list[str]:
    """What the gate decided, which policy was taken back, and what was not remembered; each line with the run's name if asked."""
    found = [(int(name.removeprefix(GATE).split("/")[0]), fact) for name, fact in run.facts.items() if name.startswith(GATE)]
    where = f"{run.folder.name}, " if named else ""
    refused = [why for name, why in run.facts.items() if name.startswith(REFUSED)]
    told = [f"gate, {where}round {number}: {_verdict(fact, number)}" for number, fact in found]
    told += [f"gate, {where}round {number}: {line}" for number, fact in found for line in _asides(fact)]
    backs = [(name.removeprefix(BACK).split("/")[0], fact) for name, fact in run.facts.items() if name.startswith(BACK)]
    told += [f"policy, {where}{back_said(int(after), fact['to'], fact['why'])}" for after, fact in backs]
    begun = [(name.removeprefix(BEGUN), fact) for name, fact in run.facts.items() if name.startswith(BEGUN)]
    told += [f"ahead, {where}round {number}: {ahead_said(fact)}" for number, fact in begun if fact["ahead"]]
    return [*told, *([f"memory, {where}{not_remembered(refused)}"] if refused else [])]


def ahead_said(fact: Mapping[str, Any]) -> str:
    """What was made ahead of a round, in words."""
    made, old = sum(fact["ahead"].values()), stale(fact)
    whom = "by the policy of the round before" if old else "by the policy that was still in place when it began"
    return f"{made} attempt{'s' if made > 1 else ''} made before it began, {whom}"


def _pooled(name: str, measured: Sequence[tuple[Told, Mapping[str, Arms]]]) -> list[Report]:
    """One report for each arm of an evaluation, over the runs, each given with its evaluations."""
    first = measured[0][1][name]
    arms = {arm: [_attempts(run, name, found[name][arm]) for run, found in measured] for arm in first}
    base = arms.get("base")
    return [pooled_report(arm, found, base if arm != "base" else None, "base" if base else "") for arm, found in arms.items()]


def _attempts(run: Told, name: str, ids: Sequence[str]) -> list[Outcome]:
    known = run.outcomes(ids)
    missing = [id for id in ids if id not in known]
    if missing:
        path = run.folder / JOURNAL
        raise AgentevolveError(f"{path}: the evaluation {name} names the attempt {missing[0]!r}, which is not there")
    return [known[id] for id in ids]


def _verdict(fact: Mapping[str, Any], number: int) -> str:
    early = f", after {fact['tasks']} of {fact['of']} tasks" if fact.get("tasks") != fact.get("of") else ""
    if not fact["promoted"]:
        return f"rolled back, {fact['holder']} stays (no candidate passed{early})"
    return f"promoted {fact['promoted']} ({verdict_of(dict(fact), number, fact['promoted']).change}{early})"


def _asides(fact: Mapping[str, Any]) -> Iterator[str]:
    """What a candidate changed on the guards' tasks, and what of it looks like a collapse."""
    for arm, guards in fact.get("guards", {}).items():
        for guard, found in guards.items():
            change = points(Difference.model_validate({name: found[name] for name in Difference.model_fields}))
            yield f"{arm} on {guard}: {change} points" + (", which may be forgetting" if found["forgets"] else "")
    for arm, signs in fact.get("alarms", {}).items():
        for sign in signs:
            yield f"{arm} looks like a collapse: {sign}"
