"""Methods side by side at an equal budget: each learns on the same tasks with the same seeds, and is measured on the same ones.

OUT/comparison.yaml               what was asked for
OUT/TASKS/seed-N/controls/        a run: no learning, random and oracle
OUT/TASKS/seed-N/METHOD/          a run for each method: its rounds, and its measurements after each

As in `evolve` there is no state but the journals. What one run has paid for, the others of the same seed borrow, and are
charged for: the budget is what a method costs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from agentevolve.acquire import is_plan
from agentevolve.act.attempt import ORACLE
from agentevolve.act.rollout import rollout
from agentevolve.config import Comparison, Entrant, changed_settings, read_comparison, write_config
from agentevolve.evaluate import Arm, Learnt
from agentevolve.load import load_method, load_task_set, ready, tasks_of
from agentevolve.loop.evolve import base_policy, check_method, check_model, held_out, practised
from agentevolve.memory.embed import check_price, load_embedder
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError, BudgetExceeded
from agentevolve.records import Task, Usage
from agentevolve.run.budget import Allowance
from agentevolve.run.folder import ASKED, SPENT, Run, identity, phase_of
from agentevolve.run.lock import LOCK, lock

CONFIG = "comparison.yaml"
CONTROLS = "controls"
ROUND = "round "  # and its number: the fact that says whether it fitted the budget
MAY_BE_ADDED = ("methods", "seeds", "tasks")
UNFIT = "did not fit the budget"


class Exercise(NamedTuple):
    """What a method is given with one seed: tasks to learn from, tasks that it is measured on, and others to forget."""

    name: str
    train: list[Task]
    held: list[Task]
    guard: list[Task]


def compare(config: Comparison, folder: Path, *, resume: bool = False, quiet: bool = False) -> list[Learnt]:
    """Run every method on every task set with every seed; what each has learnt, and what the controls reached.

    Raises AgentevolveError before anything is written for a comparison that cannot be run, or a folder that holds another.
    """
    exercises = check_comparison(config)
    found = []
    with lock(folder):
        _claim(config, folder, resume)
        for of_set in exercises:
            for seed, given in zip(config.seeds, of_set, strict=True):
                found += _with_seed(config, folder / given.name / f"seed-{seed}", seed, given, quiet)
    return found


def check_comparison(config: Comparison) -> list[list[Exercise]]:
    """What there is to do, by task set and seed; raises AgentevolveError for a comparison that cannot be run."""
    for name in (*config.tasks, *([config.guard] if config.guard else [])):
        ready(load_task_set(name))
    check_price(load_embedder(config.embedder), config.budget.usd)
    check_model(config, config.budget.usd)
    for entrant in config.methods:
        check_method(entrant.method, entrant.settings, config.model, config.api_base)
        if entrant.name == CONTROLS:
            raise AgentevolveError(f"methods: {CONTROLS!r} is the name of the control arms; give the method a label")
    return [[exercise(config, name, seed) for seed in config.seeds] for name in config.tasks]


def exercise(config: Comparison, name: str, seed: int) -> Exercise:
    """The tasks of a seed: `train.tasks` drawn from the train split, the first `held.tasks` of the split that is measured."""
    task_set = load_task_set(name)
    train = practised(task_set, config.train.tasks, seed)
    held = tasks_of(task_set, config.split, limit=config.held.tasks)
    if not held:
        raise AgentevolveError("held.tasks is 0: without held-out tasks there is nothing to compare by")
    guard = tasks_of(load_task_set(config.guard), config.split, limit=config.held.tasks) if config.guard else []
    held_out(train, held + guard)
    return Exercise(task_set.name, train, held, guard)


def _claim(config: Comparison, folder: Path, resume: bool) -> None:
    """Make `folder` this comparison's, or find that it is; on resuming, methods, seeds and task sets may have been added."""
    there = folder / CONFIG
    if not there.exists():
        if any(not child.name.startswith(".") for child in folder.iterdir() if child.name != LOCK):
            raise AgentevolveError(f"{folder}: not empty and not a comparison; name a new folder with --out")
    elif not resume:
        raise AgentevolveError(f"{folder}: holds a comparison already; go on with --resume, or name a new folder with --out")
    elif other := changed_settings(read_comparison(there).public(), config.public(), *MAY_BE_ADDED):
        names = ", ".join(other)
        raise AgentevolveError(f"{there}: was made with other settings ({names}); only methods, seeds and tasks may change")
    write_config(config, there)


def _with_seed(config: Comparison, place: Path, seed: int, given: Exercise, quiet: bool) -> list[Learnt]:
    """The controls and every method with one seed."""
    done: list[Run] = []

    def within(name: str, do: Callable[[Run], list[Arm]]) -> Learnt:
        run = Run(place / name, seed=seed, workers=config.workers, quiet=quiet)
        run.held_out = frozenset(map(identity, given.held + given.guard))
        run.prices, run.embedder = config.prices, config.embedder
        for other in done:
            run.borrow(other)
        try:
            arms = do(run)
        finally:
            run.close()
        done.append(run)
        return Learnt(given.name, seed, name, arms, run.costs(), rounds_of(run), taught_in(run))

    found = [within(CONTROLS, lambda run: _controls(config, given, run))]
    for entrant in config.methods:
        found.append(within(entrant.name, lambda run, entrant=entrant: _learn(config, entrant, given, run)))  # type: ignore[misc]
    return found


def _controls(config: Comparison, given: Exercise, run: Run) -> list[Arm]:
    base = base_policy(config)
    policies = {"no learning": base, "random": Policy(model="random"), "oracle": Policy(model=ORACLE)}
    arms = [_measured(name, policy, given.held, run, "0", config) for name, policy in policies.items()]
    return arms + ([_measured("guard", base, given.guard, run, "0", config)] if given.guard else [])


def _learn(config: Comparison, entrant: Entrant, given: Exercise, run: Run) -> list[Arm]:
    """All rounds that fit the budget, each measured; then the learnt policy's own controls."""
    run.settle("method", entrant.model_dump(mode="json", exclude={"label"}))
    method = load_method(entrant.method, entrant.settings)
    budget = config.budget
    episodes, spent = run.learning()
    run.budget = allowance = Allowance(
        budget.tokens, budget.usd, spent, max_episodes=budget.episodes, episodes=episodes, notes=run.notes
    )
    base = policy = base_policy(config)
    arms: list[Arm] = []
    for number in range(1, config.rounds + 1):
        run.round = number
        candidate = _one_round(lambda policy=policy: method(policy, given.train, run), run, allowance)  # type: ignore[misc]
        if candidate is None:
            break
        policy = candidate.using(round=number)
        with allowance.aside():
            arms.append(_measured("learnt", policy, given.held, run, str(number), config))
    with allowance.aside():
        extra = own_controls(base, policy)
        arms += [_measured(name, one, given.held, run, "end", config) for name, one in extra.items()]
        return arms + ([_measured("guard", policy, given.guard, run, "end", config)] if given.guard else [])


def _one_round(learn: Callable[[], Policy], run: Run, allowance: Allowance) -> Policy | None:
    """The policy after the round under way, or None if it did not fit the allowance: then the one before it stays.

    Whether it fits depends on its whole cost alone, so that a resumed comparison decides as an uninterrupted one does.
    """
    name = f"{ROUND}{run.round}"
    if run.facts.get(name, {}).get("unfit"):
        return None
    try:
        policy = learn()
        fits = name in run.facts or allowance.kept()
    except BudgetExceeded:
        policy, fits = None, False
    episodes, spent = run.learning()
    cost = {"episodes": episodes, "usage": spent.model_dump()} if fits else {}
    run.once(name, lambda: {"unfit": "" if fits else UNFIT, **cost})
    return policy if fits else None


def own_controls(base: Policy, policy: Policy) -> dict[str, Policy]:
    """What tells where a learnt policy's gain comes from: other entries in its memory's place, and its weights alone."""
    found = {}
    if policy.memory and any([*policy.recall.own.values(), *policy.recall.nearest.values()]):
        found["shuffled memory"] = policy.using(recall=policy.recall.model_copy(update={"shuffled": True}))
    if policy.adapter and policy.memory:
        found["empty memory"] = base.using(adapter=policy.adapter, round=policy.round)
    return found


def _measured(name: str, policy: Policy, tasks: Sequence[Task], run: Run, when: str, config: Comparison) -> Arm:
    """The policy's attempts at held-out tasks, with the luck that all policies share."""
    phase = f"{when}/{config.split}/{name.replace(' ', '-')}"
    attempts = rollout(policy, tasks, run, phase=phase, samples=config.held.samples, luck=config.split, measuring=True)
    return Arm(name, when, attempts)


def rounds_of(run: Run) -> list[tuple[int, Usage]]:
    """For each round that counts the attempts and the cost of learning up to its end; its seconds are those on the clock."""
    found, waited, phases = [], 0.0, run.phases()
    for name, fact in run.facts.items():  # in the order in which they were journalled
        if name.startswith((ASKED, SPENT)) and "usage" in fact:
            waited += fact["usage"]["seconds"]
        elif name.startswith(ROUND) and not fact["unfit"]:
            last = int(name.removeprefix(ROUND))
            made = sum(of.seconds for phase, of in phases.items() if _learnt_by(phase, last))
            cost = Usage.model_validate(fact["usage"])
            found.append((fact["episodes"], cost.model_copy(update={"seconds": waited + made / run.workers})))
    return found


def _learnt_by(phase: str, last: int) -> bool:
    number = phase.partition("/")[0]
    return phase_of(phase) == "acquire" and number.isdigit() and int(number) <= last


def taught_in(run: Run) -> bool:
    """Whether the method has seen solutions that the worlds gave, not the model: an oracle's attempt, or its plan as a hint."""
    learnt = list(run.outcomes_of(lambda phase: phase_of(phase) == "acquire"))
    hinted = (one.id for one in learnt if one.hinted)
    return any(one.policy.model == ORACLE for one in learnt) or any(is_plan(run.trajectories[id].hint) for id in hinted)
