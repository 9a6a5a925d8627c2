"""What the command line does: from arguments to calls of the house, with every check before anything is written."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agentevolve.act.rollout import ORACLE, rollout
from agentevolve.config import Comparison, Config
from agentevolve.evaluate import (
    Standing,
    caveats,
    curves,
    learning_curve,
    markdown,
    pooled_report,
    report,
    standings,
    to_csv,
    to_json,
)
from agentevolve.load import load_task_set, ready, tasks_of
from agentevolve.local.adapter import check_base, lora_settings, read_adapter
from agentevolve.local.train import check_trainable
from agentevolve.loop.compare import compare
from agentevolve.loop.forecast import FILE, PROBES, Forecast, error_of, forecast_comparison, forecast_evolution
from agentevolve.memory import MiniLM, open_memory, read_entries, read_stats
from agentevolve.memory.folder import check_model
from agentevolve.models.lite import open_model
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry, Report, Task, Trajectory
from agentevolve.refine import best
from agentevolve.run.folder import JOURNAL, Run
from agentevolve.update import examples, fit, local_base


def policy(model: str, api_base: str | None, adapter: Path | None, memory: Path | None, **settings: Any) -> Policy:
    """The policy that the arguments name, checked: the model is known, the adapter is this base's, the memory is one."""
    if model != ORACLE:
        open_model(model, api_base=api_base, adapter=adapter).close()
    if adapter:
        check_base(adapter, local_base(model).identity)
    if memory:
        memory = memory_folder(memory)
        check_model(memory, MiniLM())
    folders = [str(folder) if folder else None for folder in (adapter, memory)]
    return Policy(model=model, api_base=api_base, adapter=folders[0], memory=folders[1], **settings)


def chosen_tasks(name: str, split: str, limit: int | None) -> list[Task]:
    """The tasks to run. Raises AgentevolveError for an unknown task set, world or split, a negative limit, or none at all."""
    task_set = load_task_set(name)
    tasks = tasks_of(task_set, split, limit=limit)
    if not tasks:
        raise AgentevolveError(f"{name}: no task of split {split!r} was asked for (limit {limit})")
    ready(task_set)
    return tasks


def new_folder(name: str) -> Path:
    """A folder under runs/ that is not there yet."""
    place = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    return place if not place.exists() else place.with_name(f"{place.name}-{time.time_ns() % 1000}")


def run_policy(
    wanted: Policy,
    tasks: Sequence[Task],
    place: Path,
    samples: int,
    workers: int,
    seed: int,
    limits: tuple[int | None, float | None],
    quiet: bool,
) -> Report:
    """Run the policy on the tasks in the run at `place`, which may be there already, and report."""
    run = Run(place, seed=seed, workers=workers, quiet=quiet)
    try:
        run.settle("policy", wanted.model_dump(mode="json") | {"samples": samples, "seed": seed})
        run.limit(*limits)
        attempts = rollout(wanted, tasks, run, phase="run", samples=samples)
    finally:
        run.close()
    return report(wanted.model, attempts)


def distill(
    runs: Sequence[Path],
    out: Path,
    model: str,
    per_task: int,
    max_turns: int | None,
    settings: dict[str, Any],
    keep_memory: bool,
    seed: int,
    quiet: bool,
) -> int:
    """Fine-tune `model` on the solved train attempts of the runs; how many trajectories it learnt from."""
    base, wanted = local_base(model), lora_settings(**settings)
    if out.exists():
        raise AgentevolveError(f"{out}: exists already; name a new folder with --out")
    lived = [
        trajectory
        for folder in runs
        for one in seeds(folder)
        for trajectory in attempts_of(one)
        if trajectory.task.split == "train"
    ]
    kept = best(lived, per_task=per_task, max_turns=max_turns)
    if not kept:
        names = ", ".join(map(str, runs))
        raise AgentevolveError(f"{names}: no solved attempt at a train task to learn from ({len(lived)} train attempts)")
    check_trainable(base)
    fit(base, examples(kept, keep_memory=keep_memory), out, wanted, seed=seed, quiet=quiet, threads=None)
    return len(read_adapter(out).sources)


class Found(NamedTuple):
    """A run's reports for reading: tables by name, the gate's verdicts as lines, and what the picture needs."""

    place: Path
    tables: dict[str, list[Report]]
    verdicts: list[str]
    rounds: dict[int, list[Report]]
    by_seed: list[dict[int, list[Report]]]

    def draw(self) -> Path:
        """Draw the learning curve into the run's folder."""
        rounds = self.rounds or {0: next(iter(self.tables.values()))}
        return learning_curve(rounds, self.place / "report.png", seeds=self.by_seed if len(self.by_seed) > 1 else ())


def reports(place: Path) -> Found:
    """The reports of the run at `place`, its seeds pooled. Raises AgentevolveError where nothing is measured."""
    runs = [Run(folder, quiet=True) for folder in seeds(place)]
    measured = [(one, one.evaluations()) for one in runs]
    names = [name for name in measured[0][1] if all(name in found for _, found in measured)]
    if not names:
        raise AgentevolveError(f"{place}: nothing is measured yet; go on with: agentevolve evolve CONFIG --out {place} --resume")
    tables = {name: _pooled(name, measured) for name in names}
    rounds = {int(name.split("/")[0]): found for name, found in tables.items() if name.endswith("/val")}
    by_seed = [{int(name.split("/")[0]): _pooled(name, [one]) for name in names if name.endswith("/val")} for one in measured]
    return Found(place, tables, [line for one in runs for line in _verdicts(one, len(runs) > 1)], rounds, by_seed)


def _pooled(name: str, measured: Sequence[tuple[Run, dict[str, dict[str, list[str]]]]]) -> list[Report]:
    """One report for each arm of an evaluation, over the runs, each given with its evaluations."""
    first = measured[0][1][name]
    arms = {arm: [[run.trajectories[id] for id in found[name][arm]] for run, found in measured] for arm in first}
    base = arms.get("base")
    return [pooled_report(arm, found, base if arm != "base" else None, "base" if base else "") for arm, found in arms.items()]


def _verdicts(run: Run, named: bool) -> list[str]:
    prefix = "gate "
    found = [(name.removeprefix(prefix).split("/")[0], fact) for name, fact in run.facts.items() if name.startswith(prefix)]
    return [f"gate, {f'{run.folder.name}, ' if named else ''}round {number}: {_verdict(fact)}" for number, fact in found]


def _verdict(fact: dict[str, Any]) -> str:
    if not fact["promoted"]:
        return f"rolled back, {fact['holder']} stays (no candidate passed)"
    found = {name: 100 * value for name, value in fact["differences"][fact["promoted"]].items()}
    shown = f"{found['mean']:+.0f} points [{found['low']:+.0f}, {found['high']:+.0f}]"
    return f"promoted {fact['promoted']} ({shown} over {fact['holder']})"


class Compared(NamedTuple):
    """A comparison's outcome, and the files that say it."""

    rows: list[Standing]
    caveats: list[str]
    files: list[Path]


def compared(config: Comparison, place: Path, resume: bool, quiet: bool) -> Compared:
    """Compare, and write table.md, results.csv, results.json and curves.png into the comparison's folder."""
    found = compare(config, place, resume=resume, quiet=quiet)
    rows = standings(found, config.held.samples)
    said = caveats(rows, config.model)
    budget = ", ".join(f"{value:,} {name}" for name, value in config.budget.model_dump().items() if value is not None)
    made_by = (
        f"Made by `agentevolve compare`: {config.model}, at most {config.rounds} rounds on {config.train.tasks} train tasks "
        f"within {budget} a method and seed; measured on {config.held.tasks} {config.split} tasks, "
        f"{config.held.samples} attempt{'s' * (config.held.samples > 1)} each; seeds {', '.join(map(str, config.seeds))}."
    )
    values = {"config": config.model_dump(mode="json"), "standings": to_json(rows), "cannot_be_concluded": said}
    texts = {
        "table.md": markdown(rows, said, made_by),
        "results.csv": to_csv(rows),
        "results.json": json.dumps(values, indent=1, ensure_ascii=False) + "\n",
    }
    for name, text in texts.items():
        (place / name).write_text(text, encoding="utf-8")
    unit = next(name for name, value in config.budget.model_dump().items() if value is not None)
    picture = curves(rows, place / "curves.png", unit=unit)
    return Compared(rows, said, [*(place / name for name in texts), picture])


def forecast_of(config: Config | Comparison, place: Path, quiet: bool) -> Forecast:
    """What it will cost, from a probe that is kept in `place`, a new or empty folder."""
    if any(not child.name.startswith(".") for child in (place.iterdir() if place.exists() else ())):
        raise AgentevolveError(f"{place}: not empty; a forecast is made before the run, in the folder that the run will have")
    if isinstance(config, Config):
        return forecast_evolution(config, place, quiet=quiet)
    return forecast_comparison(config, place, quiet=quiet)


def forecast_error(place: Path) -> list[str]:
    """How far off the forecast for the run or comparison at `place` was, if there was one."""
    folders = sorted(path.parent for path in place.rglob(JOURNAL) if PROBES not in path.parts)
    return error_of(place, [Run(folder, quiet=True) for folder in folders]) if (place / FILE).is_file() else []


def seeds(place: Path) -> list[Path]:
    """The folders of the runs at `place`: itself, or one for each seed. Raises AgentevolveError if there is none."""
    if (place / JOURNAL).is_file():
        return [place]
    found = sorted(folder for folder in place.glob("seed-*") if (folder / JOURNAL).is_file())
    if not found:
        raise AgentevolveError(f"{place}: not a run: there is no {JOURNAL} in it")
    return found


def attempts_of(folder: Path) -> list[Trajectory]:
    """Every attempt in a run's journal."""
    return list(Run(folder, quiet=True).trajectories.values())


def memory_folder(place: Path) -> Path:
    """The memory at `place`, a memory folder or a run that has one."""
    for folder in (place, place / "memory"):
        if (folder / "memory.json").is_file():
            return folder
    raise AgentevolveError(f"{place}: neither a memory folder nor a run with one: there is no memory.json")


def entries(place: Path, kind: str | None, as_of: int | None) -> list[Entry]:
    """The entries of the memory at `place`."""
    return read_entries(memory_folder(place), as_of=as_of, kind=kind)


def entry(place: Path, id: str) -> Entry:
    """One entry by its id. Raises AgentevolveError for an unknown one."""
    known = {one.id: one for one in read_entries(memory_folder(place))}
    if id not in known:
        raise AgentevolveError(f"{place}: no entry {id!r}; `agentevolve memory list {place}` prints the {len(known)} known ids")
    return known[id]


def search(place: Path, query: str, k: int) -> list[tuple[Entry, float]]:
    """The k entries nearest to the query."""
    with open_memory(memory_folder(place), create=False) as memory:
        return memory.search(query, k)


def memory_stats(place: Path) -> dict[str, Any]:
    """What the memory at `place` holds, in numbers."""
    return read_stats(memory_folder(place))


def rebuild(place: Path) -> int:
    """Build the index of the memory at `place` again from its journal; the number of keys in it."""
    with open_memory(memory_folder(place), create=False) as memory:
        return memory.rebuild()
