"""The commands `evolve` and `report`: rounds of learning, and what a run's journal says of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from agentevolve.cli.folders import new_folder
from agentevolve.cli.forecast import forecast_error, show_forecast
from agentevolve.cli.options import Changes, Config, Json, RoundsOptions
from agentevolve.cli.show import aside, show_reports
from agentevolve.local.processes import check_alone
from agentevolve.protocols import AgentevolveError

if TYPE_CHECKING:
    from agentevolve.loop.course import Stage
    from agentevolve.records import Report, Trajectory
    from agentevolve.run.folder import Run


def evolve(config: Config, options: RoundsOptions, changes: Changes = None) -> None:
    """Acquire, refine, update, evaluate, for as many rounds as the config says; then print the table and draw the picture.

    \b
    agentevolve evolve examples/quickstart.yaml
    agentevolve evolve examples/quickstart.yaml rounds=2 seeds=[1] --out runs/mine
    agentevolve evolve examples/quickstart.yaml --out runs/mine --resume
    """
    from agentevolve.config import read_config
    from agentevolve.doors.trackers import tracked
    from agentevolve.loop.evolve import evolve as evolved

    check_alone("evolve")
    settings = read_config(config, changes or [])
    if options.resume and options.out is None:
        raise AgentevolveError("--resume needs --out RUN, the folder of the run to go on with")
    place = options.out or new_folder(config.stem)
    if options.dry_run:
        return show_forecast(settings, place, options)
    with tracked(settings.track, settings.public()):
        evolved(settings, place, resume=options.resume, quiet=options.quiet)
    report(place, options.as_json)


def report(run: Annotated[Path, typer.Argument(help="A run's folder.")], as_json: Json = False) -> None:
    """Print a run's tables (all seeds pooled) and draw its learning curve into the run's folder."""
    found = reports(run)
    show_reports(found.tables, as_json, found.stages if len(found.stages) > 1 else ())
    for line in found.verdicts:
        print(line, file=sys.stderr if as_json else sys.stdout)
    aside([*forecast_error(run), _picture(found)])


def _picture(found: Found) -> str:
    """Where the picture is, or why there is none: the table does not hang on it."""
    try:
        return f"picture: {found.draw()}"
    except AgentevolveError as error:
        return f"no picture: {error}"


class Found(NamedTuple):
    """A run's reports for reading: tables by name, the verdicts of gate and memory as lines, and what the picture needs."""

    place: Path
    tables: dict[str, list[Report]]
    verdicts: list[str]
    rounds: dict[int, list[Report]]
    by_seed: list[dict[int, list[Report]]]
    stages: list[Stage]

    def draw(self) -> Path:
        """Draw the learning curve into the run's folder."""
        from agentevolve.evaluate import learning_curve

        rounds = self.rounds or {0: next(iter(self.tables.values()))}
        return learning_curve(rounds, self.place / "report.png", seeds=self.by_seed if len(self.by_seed) > 1 else ())


def reports(place: Path) -> Found:
    """The reports of the run at `place`, its seeds pooled. Raises AgentevolveError where nothing is measured."""
    from agentevolve.loop.course import course
    from agentevolve.run.folder import read_run, seeds

    runs = [read_run(folder) for folder in seeds(place)]
    measured = [(one, one.evaluations()) for one in runs]
    names = [name for name in measured[0][1] if all(name in found for _, found in measured)]
    if not names:
        raise AgentevolveError(f"{place}: nothing is measured yet; go on with: agentevolve evolve CONFIG --out {place} --resume")
    tables = {name: _pooled(name, measured) for name in names}
    rounds = {int(name.split("/")[0]): found for name, found in tables.items() if name.endswith("/val")}
    by_seed = [{int(name.split("/")[0]): _pooled(name, [one]) for name in names if name.endswith("/val")} for one in measured]
    verdicts = [line for one in runs for line in _verdicts(one, len(runs) > 1)]
    return Found(place, tables, verdicts, rounds, by_seed, course(runs))


def _pooled(name: str, measured: Sequence[tuple[Run, dict[str, dict[str, list[str]]]]]) -> list[Report]:
    """One report for each arm of an evaluation, over the runs, each given with its evaluations."""
    from agentevolve.evaluate import pooled_report

    first = measured[0][1][name]
    arms = {arm: [_attempts(run, name, found[name][arm]) for run, found in measured] for arm in first}
    base = arms.get("base")
    return [pooled_report(arm, found, base if arm != "base" else None, "base" if base else "") for arm, found in arms.items()]


def _attempts(run: Run, name: str, ids: Sequence[str]) -> list[Trajectory]:
    known = run.attempts()
    missing = [id for id in ids if id not in known]
    if missing:
        raise AgentevolveError(f"{run.journal.path}: the evaluation {name} names the attempt {missing[0]!r}, which is not there")
    return [known[id] for id in ids]


def _verdicts(run: Run, named: bool) -> list[str]:
    """What the gate decided, and what was not remembered."""
    from agentevolve.loop.policies import BACK, GATE, back_said
    from agentevolve.run.folder import REFUSED
    from agentevolve.update.context import not_remembered

    found = [(int(name.removeprefix(GATE).split("/")[0]), fact) for name, fact in run.facts.items() if name.startswith(GATE)]
    where = f"{run.folder.name}, " if named else ""
    refused = [why for name, why in run.facts.items() if name.startswith(REFUSED)]
    told = [f"gate, {where}round {number}: {_verdict(fact, number)}" for number, fact in found]
    told += [f"gate, {where}round {number}: {line}" for number, fact in found for line in _asides(fact)]
    backs = [(name.removeprefix(BACK).split("/")[0], fact) for name, fact in run.facts.items() if name.startswith(BACK)]
    told += [f"policy, {where}{back_said(int(after), fact['to'], fact['why'])}" for after, fact in backs]
    return [*told, *([f"memory, {where}{not_remembered(refused)}"] if refused else [])]


def _verdict(fact: dict[str, Any], number: int) -> str:
    from agentevolve.loop.policies import verdict_of

    early = f", after {fact['tasks']} of {fact['of']} tasks" if fact.get("tasks") != fact.get("of") else ""
    if not fact["promoted"]:
        return f"rolled back, {fact['holder']} stays (no candidate passed{early})"
    return f"promoted {fact['promoted']} ({verdict_of(fact, number, fact['promoted']).change}{early})"


def _asides(fact: dict[str, Any]) -> Iterator[str]:
    """What a candidate changed on the guards' tasks, and what of it looks like a collapse."""
    from agentevolve.evaluate.table import points
    from agentevolve.records import Difference

    for arm, guards in fact.get("guards", {}).items():
        for guard, found in guards.items():
            change = points(Difference.model_validate({name: found[name] for name in Difference.model_fields}))
            yield f"{arm} on {guard}: {change} points" + (", which may be forgetting" if found["forgets"] else "")
    for arm, signs in fact.get("alarms", {}).items():
        for sign in signs:
            yield f"{arm} looks like a collapse: {sign}"
