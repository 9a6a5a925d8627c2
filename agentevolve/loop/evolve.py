"""The round loop: acquire → refine → update → evaluate, a gate at the end of each round, and the test split once.

There is no state but the run's journal: a killed evolution is resumed by running it again, and everything that the journal
holds is taken from there.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from agentevolve.act.attempt import ORACLE
from agentevolve.config import Config, Setup, changed_settings, read_config, write_config
from agentevolve.load import TaskSet, load_method, load_task_set, ready, tasks_of
from agentevolve.local.train import LoraSettings, check_trainable
from agentevolve.loop.ahead import Ahead, check_ahead, share
from agentevolve.loop.judging import IN_PLACE, judged, measured, record
from agentevolve.loop.policies import taken_back
from agentevolve.memory.embed import check_price, load_embedder
from agentevolve.memory.folder import about, memory_folder
from agentevolve.models.addresses import addresses
from agentevolve.models.engines import vllm
from agentevolve.models.lite import VLLM, here, open_model
from agentevolve.policy import Policy, Recall
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Task
from agentevolve.run.budget import Budget
from agentevolve.run.folder import Run, derived, identity, read_run, started
from agentevolve.run.lock import LOCK, lock
from agentevolve.update.weights import local_base

CONFIG = "config.yaml"


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
    else:
        _check_same(read_config(there), config, there)
    write_config(config, there)


def _check_same(before: Config, now: Config, there: Path) -> None:
    """Raise AgentevolveError unless an evolution may go on as `now`: with the same settings, perhaps for more rounds."""
    other = changed_settings(before.public(), now.public(), "rounds")
    if now.rounds < before.rounds:
        other = sorted([*other, "rounds"])
    if other:
        raise AgentevolveError(f"{there}: was made with other settings ({', '.join(other)}); resume with the same ones")
    if now.rounds > before.rounds and any("evaluation test" in read_run(one).facts for one in started(there.parent)):
        raise AgentevolveError(f"{there}: rounds: test was measured after round {before.rounds}, and is touched once, at the end")


def check(config: Config) -> None:
    """Raise AgentevolveError, before anything is spent, if the config names what is not there, or a model that cannot do it."""
    task_set = load_task_set(config.tasks)
    ready(task_set)
    for split in ("train", "val", "test") if config.test.tasks else ("train", "val"):
        tasks_of(task_set, split, limit=1)
    for name in config.gate.guards:
        ready(load_task_set(name))
        guarded(name, 1)
    if not config.val.tasks:
        raise AgentevolveError("val.tasks is 0: without held-out tasks the gate has nothing to judge by")
    for place in [Path(variant.memory) for variant in config.variants if variant.memory]:
        for seed in config.seeds:
            about(memory_folder(place, seed))
    check_price(load_embedder(config.embedder), config.max_usd)
    check_model(config, config.max_usd)
    check_method(config.method, config.settings, config.model, config.api_base)
    if config.asynchronous:
        asked = asked_of(config.method, config.settings)
        check_ahead(config, asked, trains=trains(asked))


def check_model(config: Setup, max_usd: float | None) -> None:
    """Raise AgentevolveError for a model that is not there, or a limit in dollars on one whose price nobody knows."""
    if config.model != ORACLE:
        open_model(config.model, api_base=config.api_base, budget=Budget(max_usd=max_usd), prices=config.prices).close()


def check_method(name: str, settings: Mapping[str, Any], model: str, api_base: str | None = None) -> None:
    """Raise AgentevolveError for a method that is not there, or that asks `model` (or its server) for what it cannot do."""
    asked = asked_of(name, settings)
    if "feeds" in asked:
        feeds = str(asked["feeds"])
        if "feeds" in signature(load_method(feeds, {})).parameters:
            raise AgentevolveError(f"the method {name!r} cannot feed {feeds!r}, which feeds another itself")
        check_method(feeds, asked.get("feeding") or {}, model, api_base)
    if trains(asked) and not here(model):
        how = ": settings.rows=0 leaves the weights as they are" if "rows" in asked else ""
        raise AgentevolveError(f"the method {name!r} fine-tunes, but {model!r} is not a local model{how}")
    if trains(asked):
        check_trainable(local_base(model))
    if trains(asked) and api_base and model.startswith(VLLM):
        for url in addresses(api_base):
            vllm.check_loads(url)
    if asked.get("reflections") and model in ("random", ORACLE):
        raise AgentevolveError(
            f"{name} asks for {asked['reflections']} reflections, but {model!r} writes no text: "
            "settings.reflections=0 asks for none"
        )


def asked_of(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a method with these settings: what it is given, and what it takes else."""
    return {name: one.default for name, one in signature(load_method(name, settings)).parameters.items()}


def trains(asked: Mapping[str, Any]) -> bool:
    """Whether a method of these parameters fine-tunes."""
    return any(isinstance(value, LoraSettings) for value in asked.values()) and 0 not in (asked.get("rows"), asked.get("every"))


def evolve_one(config: Config, run: Run) -> Policy:
    """All rounds with the run's seed; the policy that is in place at the end."""
    task_set = load_task_set(config.tasks)
    train = practised(task_set, config.train.tasks, run.seed)
    method = load_method(config.method, config.settings)
    val = tasks_of(task_set, "val", limit=config.val.tasks)
    held = val + (tasks_of(task_set, "test", limit=config.test.tasks) if config.test.tasks else [])
    guards = {Path(name).stem: guarded(name, config.gate.guard_tasks) for name in config.gate.guards}
    held += [task for tasks in guards.values() for task in tasks]
    held_out(train, held)
    run.held_out = frozenset(map(identity, held))
    run.prices, run.embedder = config.prices, config.embedder
    run.limit(config.max_tokens, config.max_usd)
    base = base_policy(config)
    places = [base]  # after each round
    if config.asynchronous:
        share(run)
    with Ahead(run) as ahead:
        for number in range(1, config.rounds + 1):
            run.round = number
            if config.asynchronous:
                ahead.begun(number, places[-1])
                if number < config.rounds and taken_back(run, number) is None:
                    ahead.follow(functools.partial(method, places[-1], train))
            candidate = method(places[-1], train, run).using(round=number)
            arms = arms_of(config, base, candidate, run.seed)
            policy = judged(places[-1], arms, val, guards, run, number, config)
            places.append(places[back] if (back := taken_back(run, number)) is not None else policy)
    if config.test.tasks:
        test = tasks_of(task_set, "test", limit=config.test.tasks)
        shown = {"base": base} if places[-1] == base else {"base": base, IN_PLACE: places[-1]}
        record(run, "test", measured(shown, test, run, "test", config.test.samples)[1])
    return places[-1]


def guarded(name: str, n: int) -> list[Task]:
    """The first `n` held-out tasks of a task set on which forgetting is looked for."""
    return tasks_of(load_task_set(name), "val", limit=n)


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
