"""The round loop: acquire → refine → update → evaluate, a gate at the end of each round, and the test split once.

There is no state but the run's journal: a killed evolution is resumed by running it again, and everything that the journal
holds is taken from there.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from agentevolve.act.rollout import ORACLE, rollout, unlike
from agentevolve.config import Config, Setup, changed_settings, read_config, write_config
from agentevolve.evaluate.gate import gate
from agentevolve.load import TaskSet, load_method, load_task_set, ready, tasks_of
from agentevolve.local.train import LoraSettings, check_trainable
from agentevolve.memory.embed import check_price, load_embedder
from agentevolve.memory.folder import about, memory_folder
from agentevolve.models.lite import open_model
from agentevolve.policy import Policy, Recall
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Task, Trajectory
from agentevolve.run.budget import Budget
from agentevolve.run.folder import Run, derived, identity
from agentevolve.run.lock import LOCK, lock
from agentevolve.update.weights import local_base

CONFIG = "config.yaml"
CANDIDATES = ("memory", "distilled", "distilled+memory")  # arms the gate may promote
STILL = ("random", "oracle", "base")  # arms that no round changes: measured once


def evolve(config: Config, folder: Path, *, resume: bool = False, quiet: bool = False) -> list[Run]:
    """Evolve once for each seed, in `folder` (one seed) or its subfolders `seed-N`; the runs, closed, in the order of seeds.

    Raises AgentevolveError before anything is written for a config that cannot be run, a folder that holds a run (unless
    `resume`) or another config.
    """
    check(config)
    with lock(folder) as held:
        _claim(config, folder, resume)
        if len(config.seeds) == 1:
            held.release()  # the run takes it
            return [_evolved(config, folder, config.seeds[0], quiet)]
        return [_evolved(config, folder / f"seed-{seed}", seed, quiet) for seed in config.seeds]


def _evolved(config: Config, place: Path, seed: int, quiet: bool) -> Run:
    """The run of one seed, closed."""
    run = Run(place, seed=seed, workers=config.workers, quiet=quiet)
    try:
        evolve_one(config, run)
    finally:
        run.close()
    return run


def _claim(config: Config, folder: Path, resume: bool) -> None:
    """Make `folder` this config's run, or find that it already is."""
    there = folder / CONFIG
    if not there.exists():
        if any(not child.name.startswith(".") for child in folder.iterdir() if child.name != LOCK):
            raise AgentevolveError(f"{folder}: not empty and not a run; name a new folder with --out")
    elif not resume:
        raise AgentevolveError(f"{folder}: holds a run already; go on with --resume, or name a new folder with --out")
    elif other := changed_settings(read_config(there).public(), config.public()):
        raise AgentevolveError(f"{there}: was made with other settings ({', '.join(other)}); resume with the same ones")
    write_config(config, there)


def check(config: Config) -> None:
    """Raise AgentevolveError, before anything is spent, if the config names what is not there, or a model that cannot do it."""
    task_set = load_task_set(config.tasks)
    ready(task_set)
    for split in ("train", "val", "test") if config.test.tasks else ("train", "val"):
        tasks_of(task_set, split, limit=1)
    if not config.val.tasks:
        raise AgentevolveError("val.tasks is 0: without held-out tasks the gate has nothing to judge by")
    for place in [Path(variant.memory) for variant in config.variants if variant.memory]:
        for seed in config.seeds:
            about(memory_folder(place, seed))
    check_price(load_embedder(config.embedder), config.max_usd)
    check_model(config, config.max_usd)
    check_method(config.method, config.settings, config.model)


def check_model(config: Setup, max_usd: float | None) -> None:
    """Raise AgentevolveError for a model that is not there, or a limit in dollars on one whose price nobody knows."""
    if config.model != ORACLE:
        open_model(config.model, api_base=config.api_base, budget=Budget(max_usd=max_usd), prices=config.prices).close()


def check_method(name: str, settings: Mapping[str, Any], model: str) -> None:
    """Raise AgentevolveError for a method that is not there, or that asks `model` for what it cannot do."""
    method = load_method(name, settings)
    asked = {name: one.default for name, one in signature(method).parameters.items()}
    if "feeds" in asked:
        feeds = str(asked["feeds"])
        if "feeds" in signature(load_method(feeds, {})).parameters:
            raise AgentevolveError(f"the method {name!r} cannot feed {feeds!r}, which feeds another itself")
        check_method(feeds, asked.get("feeding") or {}, model)
    trains = any(isinstance(value, LoraSettings) for value in asked.values()) and 0 not in (asked.get("rows"), asked.get("every"))
    if trains and not model.startswith("local/"):
        how = ": settings.rows=0 leaves the weights as they are" if "rows" in asked else ""
        raise AgentevolveError(f"the method {name!r} fine-tunes, but {model!r} is not a local model{how}")
    if trains:
        check_trainable(local_base(model))
    if asked.get("reflections") and model in ("random", ORACLE):
        raise AgentevolveError(
            f"{name} asks for {asked['reflections']} reflections, but {model!r} writes no text: "
            "settings.reflections=0 asks for none"
        )


def evolve_one(config: Config, run: Run) -> Policy:
    """All rounds with the run's seed; the policy that is in place at the end."""
    task_set = load_task_set(config.tasks)
    train = practised(task_set, config.train.tasks, run.seed)
    method = load_method(config.method, config.settings)
    val = tasks_of(task_set, "val", limit=config.val.tasks)
    held = val + (tasks_of(task_set, "test", limit=config.test.tasks) if config.test.tasks else [])
    held_out(train, held)
    run.held_out = frozenset(map(identity, held))
    run.prices, run.embedder = config.prices, config.embedder
    run.limit(config.max_tokens, config.max_usd)
    base = policy = base_policy(config)
    for number in range(1, config.rounds + 1):
        run.round = number
        candidate = method(policy, train, run).using(round=number)
        policy = _evaluated(policy, arms_of(config, base, candidate, run.seed), val, run, number, config)
    if config.test.tasks:
        test = tasks_of(task_set, "test", limit=config.test.tasks)
        arms = {"base": base} if policy == base else {"base": base, "in place": policy}
        run.accept("test", _measure(arms, test, run, "test", config.test.samples)[1])
    return policy


def practised(task_set: TaskSet, n: int, seed: int) -> list[Task]:
    """At most `n` tasks of the train split, drawn by the run's seed."""
    pool = tasks_of(task_set, "train")
    return random.Random(derived(seed, "train tasks")).sample(pool, min(n, len(pool)))


def base_policy(config: Setup) -> Policy:
    """The policy before any learning."""
    return Policy(
        model=config.model,
        api_base=config.api_base,
        options=config.model_options,
        recall=config.recall,
        temperature=config.temperature,
        show_actions=config.show_actions,
        threads=config.threads,
    )


def arms_of(config: Config, base: Policy, candidate: Policy, seed: int) -> dict[str, Policy]:
    """The policies that a round measures, by their arms' names."""
    arms = {arm: policy_of(arm, base, candidate) for arm in map(str, config.arms)}
    for variant in config.variants:
        like = policy_of(variant.like, base, candidate)
        recall = Recall.model_validate(like.recall.model_dump() | variant.recall)
        shown = {"memory": str(memory_folder(Path(variant.memory), seed)), "as_of": None} if variant.memory else {}
        arms[variant.name] = like.using(recall=recall, **shown)
    return arms


def policy_of(arm: str, base: Policy, candidate: Policy) -> Policy:
    """The policy that an arm's name stands for: what of the candidate's learning is switched on, or a control."""
    shown = candidate.model_dump(include={"memory", "as_of", "recall", "instructions", "round"})
    remembering = base.using(**shown)
    distilled = base.using(adapter=candidate.adapter, round=candidate.round)
    return {
        "random": Policy(model="random"),
        "oracle": Policy(model=ORACLE),
        "base": base,
        "memory": remembering,
        "shuffled": remembering.using(recall=candidate.recall.model_copy(update={"shuffled": True})),
        "distilled": distilled,
        "distilled+memory": remembering.using(adapter=candidate.adapter),
    }[arm]


def held_out(train: Sequence[Task], held: Sequence[Task]) -> None:
    """Raise ValueError if a task that is learnt from is also measured on, by its id or by what it is made of."""
    learnt = {(task.env, task.split, task.seed, str(task.data)) for task in train}
    shared = [task.id for task in held if task.split == "train" or (task.env, task.split, task.seed, str(task.data)) in learnt]
    if shared:
        raise ValueError(f"tasks are both learnt from and held out: {', '.join(shared[:3])}")


def _evaluated(policy: Policy, arms: dict[str, Policy], val: Sequence[Task], run: Run, number: int, config: Config) -> Policy:
    """Measure the round's arms on `val` and let the gate decide which policy is in place after it."""
    name = f"{number}/val"
    in_place = {} if policy in arms.values() else {"in place": policy}
    results, ids = _measure(arms | in_place, val, run, name, config.val.samples)
    holder = next(arm for arm, one in (arms | in_place).items() if one == policy)
    challengers = {arm: results[arm] for arm in CANDIDATES if arm in results and arm != holder}
    rule, margin = config.gate.rule, config.gate.margin
    if f"gate {name}" not in run.facts:
        verdict = gate(holder, results[holder], challengers, rule, margin)
        if verdict["no_verdict"]:
            why = f"round {number}: no verdict: {verdict['no_verdict']}"
            raise AgentevolveError(f"{run.folder}: {why}; mend it and go on with --resume")
        run.once(f"gate {name}", lambda: verdict)
        run.accept(name, ids)
    verdict = run.facts[f"gate {name}"]
    return arms[verdict["promoted"]] if verdict["promoted"] else policy


def _measure(
    arms: dict[str, Policy], tasks: Sequence[Task], run: Run, name: str, samples: int
) -> tuple[dict[str, list[Trajectory]], list[str]]:
    """Every arm on the same tasks and seeds, asked alike, journalled as one evaluation; and the ids of all its attempts.

    A backend that refused on the way what held the model in the arms before is asked again for those.
    """
    luck = name.split("/")[-1]
    results: dict[str, list[Trajectory]] = {}
    odd: list[str] = [""]
    while odd:
        for arm, policy in arms.items():
            phase = f"{luck}/{arm}" if arm in STILL else f"{name}/{arm}"
            results[arm] = rollout(policy, tasks, run, phase=phase, samples=samples, luck=luck, measuring=True)
        odd = unlike([attempt for attempts in results.values() for attempt in attempts])
        run.again(name, odd)
    ids = {arm: [attempt.id for attempt in attempts] for arm, attempts in results.items()}
    run.once(f"evaluation {name}", lambda: ids)
    return results, [id for of_arm in ids.values() for id in of_arm]
