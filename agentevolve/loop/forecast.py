"""What an evolution or a comparison will cost, from a probe: each method does one round on a few train tasks, for real.

The probe's cost is scaled to all tasks, rounds and seeds, as if each round cost the same and costs grew with the tasks, and cut
to the budget. What it was is kept beside the run, so that afterwards its error can be told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agentevolve.act.rollout import rollout
from agentevolve.config import Comparison, Config, Setup
from agentevolve.load import load_method, load_task_set, tasks_of
from agentevolve.loop.compare import CONTROLS, check_comparison, own_controls
from agentevolve.loop.evolve import base_policy, check
from agentevolve.loop.judging import STILL
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Record, Task
from agentevolve.run.folder import PHASES, Run, derived, phase_of
from agentevolve.whole import write_whole

PROBED = 3  # train tasks
FREE = ("random", "oracle")  # arms that ask no model
WARMING = "warming"  # attempts that are made for what only a first one costs, and not counted
FILE, PROBES = ".forecast.json", ".probe"  # hidden, so that the run can be made in the same folder


class Spending(Record):
    """A cost: attempts, tokens of every kind, dollars, and seconds on the clock with all workers busy."""

    attempts: float = 0
    tokens: float = 0
    usd: float = 0
    seconds: float = 0

    def __add__(self, other: Spending) -> Spending:
        """The field-wise sum."""
        return Spending(**{name: value + getattr(other, name) for name, value in self.model_dump().items()})

    def times(self, factor: float) -> Spending:
        """Each field times `factor`."""
        return Spending(**{name: value * factor for name, value in self.model_dump().items()})


Phases = dict[str, Spending]  # acquire, refine, update, evaluate


class Forecast(Record):
    """What each method is expected to cost by phase, all task sets and seeds together; `probed` tasks were tried."""

    probed: int
    methods: dict[str, Phases]

    def total(self) -> Phases:
        """The sum over the methods."""
        return {phase: sum((one[phase] for one in self.methods.values()), Spending()) for phase in PHASES}


def forecast_evolution(config: Config, folder: Path, *, quiet: bool = False) -> Forecast:
    """The forecast for an evolution, kept in `folder`. Raises AgentevolveError for a config that cannot be run."""
    check(config)
    per_round = [arm for arm in config.measured() if arm not in STILL]
    measured = config.val.tasks * config.val.samples * (config.rounds * len(per_round) + ("base" in config.arms))
    measured += 2 * config.test.tasks * config.test.samples
    measured += 2 * config.rounds * len(config.gate.guards) * config.gate.guard_tasks  # one candidate passes, and its holder
    cost, _ = _probed(config, config.tasks, config.method, config.settings, folder / PROBES / config.method, quiet)
    free = config.val.tasks * config.val.samples * sum(arm in FREE for arm in config.arms)
    n = _train_tasks(config, config.tasks)
    expected = _capped(_scaled(cost, n, config.rounds, measured), {"tokens": config.max_tokens, "usd": config.max_usd}, PHASES)
    expected["evaluate"] += Spending(attempts=free)
    return _kept(Forecast(probed=min(PROBED, n), methods={config.method: _times(expected, len(config.seeds))}), folder)


def forecast_comparison(config: Comparison, folder: Path, *, quiet: bool = False) -> Forecast:
    """The forecast for a comparison, kept in `folder`; the controls are a row of their own."""
    check_comparison(config)
    methods: dict[str, Phases] = {}
    tried = config.held.tasks * config.held.samples
    guard = tried if config.guard else 0
    limits = {"attempts": config.budget.episodes, "tokens": config.budget.tokens, "usd": config.budget.usd}
    for name in config.tasks:
        n = _train_tasks(config, name)
        for entrant in config.methods:
            place = folder / PROBES / Path(name).stem / entrant.name
            cost, learnt = _probed(config, name, entrant.method, entrant.settings, place, quiet)
            measured = tried * (config.rounds + len(own_controls(base_policy(config), learnt))) + guard
            expected = _capped(_scaled(cost, n, config.rounds, measured), limits, PHASES[:3])
            _add(methods, entrant.name, _times(expected, len(config.seeds)))
        controls = _scaled({"evaluate": cost["evaluate"]}, 0, 1, tried + guard)
        controls["evaluate"] += Spending(attempts=len(FREE) * tried)
        _add(methods, CONTROLS, _times(controls, len(config.seeds)))
    return _kept(Forecast(probed=PROBED, methods=methods), folder)


def spending(run: Run) -> Phases:
    """What a run has cost by phase, but for attempts that were made for what only a first one costs."""
    costs = run.costs(_counts)
    found = {phase: Spending(tokens=cost.tokens, usd=cost.usd) for phase, cost in costs.items()}
    for phase in ("refine", "update"):
        found[phase] += Spending(seconds=costs[phase].seconds)
    for phase, made in run.phases().items():
        if _counts(phase):
            found[phase_of(phase)] += Spending(attempts=made.attempts, seconds=made.seconds / run.workers)
    return found


def _counts(phase: str) -> bool:
    return not phase.startswith(WARMING)


def error_of(folder: Path, runs: Sequence[Run]) -> list[str]:
    """How far off the forecast that is kept in `folder` was, a line a phase; none if there was no forecast."""
    path = folder / FILE
    if not path.is_file():
        return []
    try:
        expected = Forecast.model_validate_json(path.read_text(encoding="utf-8")).total()
    except (ValidationError, UnicodeDecodeError):
        raise AgentevolveError(f"{path}: not a forecast; delete it, or make it again with --dry-run") from None
    made = [spending(run) for run in runs]
    spent = {phase: sum((one[phase] for one in made), Spending()) for phase in PHASES}
    return [f"forecast, {phase}: {_compared(expected[phase], spent[phase])}" for phase in PHASES if phase in expected]


def _compared(expected: Spending, spent: Spending) -> str:
    shown = []
    for name in Spending.model_fields:
        before, after = getattr(expected, name), getattr(spent, name)
        if before or after:
            off = f"{round(100 * (before - after) / after):+d} %" if after else "not spent"
            form = ",.2f" if name == "usd" else ",.0f"
            shown.append(f"{before:{form}} {name} expected, {after:{form}} spent ({off})")
    return "; ".join(shown) or "nothing expected, nothing spent"


def _probed(
    config: Setup, tasks: str, method: str, settings: Mapping[str, Any], place: Path, quiet: bool
) -> tuple[Phases, Policy]:
    """The mean cost a task of a round's phases, and of measuring an attempt; and the policy that was learnt."""
    run = Run(place, seed=derived("forecast", config.seeds[0]), workers=config.workers, quiet=quiet)
    try:
        few, base = _few(config, tasks), base_policy(config)
        rollout(base, few[:1], run, phase=f"{WARMING}/val/base")  # the engine starts, the embedder is read
        learnt = load_method(method, settings)(base, few, run)
        rollout(learnt, few[:1], run, phase=f"{WARMING}/val/learnt")
        rollout(learnt, few, run, phase="1/val/probe")
        return _times(spending(run), 1 / len(few)), learnt
    finally:
        run.close()


def _few(config: Setup, tasks: str) -> list[Task]:
    return tasks_of(load_task_set(tasks), "train", limit=min(PROBED, config.train.tasks))


def _train_tasks(config: Setup, tasks: str) -> int:
    return min(config.train.tasks, len(tasks_of(load_task_set(tasks), "train")))


def _scaled(cost: Phases, tasks: int, rounds: int, measured: int) -> Phases:
    """The cost of `rounds` rounds on `tasks` tasks, and of `measured` attempts at held-out ones."""
    factor = {"evaluate": measured}
    return {phase: cost.get(phase, Spending()).times(factor.get(phase, tasks * rounds)) for phase in PHASES}


def _capped(cost: Phases, limits: Mapping[str, float | None], phases: Sequence[str]) -> Phases:
    """The cost, of which `phases` together stay within the limits."""
    total = sum((cost[phase] for phase in phases), Spending())
    shares = [limit / getattr(total, name) for name, limit in limits.items() if limit is not None and getattr(total, name)]
    share = min([1.0, *shares])
    return {phase: one.times(share) if phase in phases else one for phase, one in cost.items()}


def _times(cost: Phases, factor: float) -> Phases:
    return {phase: one.times(factor) for phase, one in cost.items()}


def _add(methods: dict[str, Phases], name: str, cost: Phases) -> None:
    before = methods.get(name, dict.fromkeys(PHASES, Spending()))
    methods[name] = {phase: before[phase] + one for phase, one in cost.items()}


def _kept(found: Forecast, folder: Path) -> Forecast:
    write_whole(folder / FILE, found.model_dump_json(indent=1) + "\n")
    return found
