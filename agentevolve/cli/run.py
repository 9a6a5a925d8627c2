"""The command `run`: one policy on one task set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentevolve.cli.folders import new_folder
from agentevolve.cli.options import LimitOptions, PolicyOptions, RunOptions, TaskOptions
from agentevolve.cli.show import aside, show_reports
from agentevolve.given import shown
from agentevolve.local.processes import check_alone
from agentevolve.protocols import AgentevolveError

if TYPE_CHECKING:
    from agentevolve.policy import Policy, Price, Workers
    from agentevolve.records import Report, Task


def run(
    tasks: Annotated[str, typer.Argument(help="A task set's name or YAML file, such as twc or tasks/twc.yaml.")],
    acting: PolicyOptions,
    chosen: TaskOptions,
    limits: LimitOptions,
    options: RunOptions,
) -> None:
    """Run one policy on a task set and print its success with a 95% interval.

    \b
    agentevolve run twc --model local/smollm2-135m --split test --limit 20
    agentevolve run twc --model openai/my-model --api-base http://127.0.0.1:8000/v1
    """
    check_alone("run")
    workers(chosen)
    wanted = policy(acting, limits.max_usd)
    found = chosen_tasks(tasks, chosen.split, chosen.limit)
    place = options.out or new_folder(Path(tasks).stem)
    report = run_policy(wanted, found, place, chosen, limits, prices(acting), options.quiet)
    show_reports({f"{Path(tasks).stem} {chosen.split}": [report]}, options.as_json)
    aside([f"run: {place}"])


def policy(acting: PolicyOptions, max_usd: float | None = None) -> Policy:
    """The policy that is asked for, checked: the model is known, the adapter is this base's, the memory is one.

    With a limit in dollars, so is that the model has a price.
    """
    from agentevolve.act.attempt import ORACLE
    from agentevolve.config import read_options
    from agentevolve.local.adapter import check_base
    from agentevolve.memory.folder import check_model, memory_folder
    from agentevolve.memory.store import made_with
    from agentevolve.models.lite import open_model
    from agentevolve.policy import ModelOptions, Policy
    from agentevolve.run.budget import Budget
    from agentevolve.update import local_base

    options = read_options(acting.model_options) if acting.model_options else ModelOptions()
    if acting.model != ORACLE:
        budget = Budget(max_usd=max_usd)
        open_model(acting.model, api_base=acting.api_base, adapter=acting.adapter, budget=budget, prices=prices(acting)).close()
    if acting.adapter:
        check_base(acting.adapter, local_base(acting.model).identity)
    memory = memory_folder(acting.memory) if acting.memory else None
    if memory:
        check_model(memory, made_with(memory))
    folders = {"adapter": acting.adapter, "memory": memory}
    given = asdict(acting) | {name: str(folder) if folder else None for name, folder in folders.items()}
    for name in ("model_options", "price"):
        del given[name]
    return Policy(**given, options=options)


def prices(acting: PolicyOptions) -> dict[str, Price]:
    """The price that was given for the model, if one was."""
    from agentevolve.config import read_price

    return {acting.model: read_price(acting.price)} if acting.price else {}


def workers(chosen: TaskOptions) -> Workers:
    """Where attempts are to be made."""
    from agentevolve.given import checked
    from agentevolve.policy import Workers

    return checked(Workers, {"count": chosen.workers, "on": chosen.on, "address": chosen.address}, "--on")


def chosen_tasks(name: str, split: str, limit: int | None) -> list[Task]:
    """The tasks to run. Raises AgentevolveError for an unknown task set, world or split, a negative limit, or none at all."""
    from agentevolve.load import load_task_set, ready, tasks_of

    task_set = load_task_set(name)
    tasks = tasks_of(task_set, split, limit=limit)
    if not tasks:
        raise AgentevolveError(f"{name}: no task of split {shown(split)} was asked for (limit {limit})")
    ready(task_set)
    return tasks


def run_policy(
    wanted: Policy,
    tasks: Sequence[Task],
    place: Path,
    chosen: TaskOptions,
    limits: LimitOptions,
    prices: Mapping[str, Price],
    quiet: bool,
) -> Report:
    """Run the policy on the tasks in the run at `place`, which may be there already, and report."""
    from agentevolve.act.rollout import rollout
    from agentevolve.config import changed_settings
    from agentevolve.evaluate import report
    from agentevolve.redact import redacted
    from agentevolve.run.folder import Run

    run = Run(place, seed=chosen.seed, workers=workers(chosen), quiet=quiet)
    try:
        asked = redacted(wanted.model_dump(mode="json") | {"samples": chosen.samples, "seed": chosen.seed})
        if other := changed_settings(run.about("policy", asked), asked):
            raise AgentevolveError(f"{place}: holds a run of another policy ({', '.join(other)}); name a new folder with --out")
        run.prices = prices
        run.limit(limits.max_tokens, limits.max_usd)
        attempts = rollout(wanted, tasks, run, phase="run", samples=chosen.samples, measuring=True)
    finally:
        run.close()
    return report(wanted.model, attempts)
