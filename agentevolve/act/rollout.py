"""Tasks × samples → trajectories: workers, the error boundary, resume. The only place with concurrency."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from agentevolve.act.agent import Attempt, play
from agentevolve.load import load_environment
from agentevolve.memory import open_memory, read_memory
from agentevolve.models.lite import open_model
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError, Memory, Model
from agentevolve.records import Task, Trajectory, Usage
from agentevolve.run.folder import Run, same
from agentevolve.run.progress import progress

ORACLE = "oracle"  # a policy's `model` that replays the environment's own solution: the ceiling
SERVING = "adapter.gguf"


def rollout(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    phase: str,
    samples: int = 1,
    luck: str | None = None,
    hints: Mapping[str, str] | None = None,
) -> list[Trajectory]:
    """`samples` attempts of `policy` at each task, in the order of (task, sample), each journalled in `run` as it finishes.

    `phase` names this rollout within the run: an attempt that its journal holds already is not made again. An attempt's seed
    is derived from the run's seed, `luck` (the phase, if not given), the task and the sample; evaluations share their luck,
    so that two policies are compared on the same tasks and seeds. `hints` are shown before the tasks of those ids, once.
    A failing world or backend makes a trajectory with end="error". Raises BudgetExceeded or another AgentevolveError, after
    the attempts under way have ended.
    """
    plans = [
        Plan(f"{phase}/{task.id}/{n}", phase, task, n, run.derive(luck or phase, task.id, n), (hints or {}).get(task.id, ""))
        for task in tasks
        for n in range(samples)
    ]
    missing = [plan for plan in plans if plan.id not in run.trajectories]
    if missing:
        model, memory = parts(policy, run)
        _work(missing, lambda plan: run.add(lent(plan, policy, run) or attempt(plan, policy, model, memory, run)), run, phase)
    return [run.trajectories[plan.id] for plan in plans]


class Plan(NamedTuple):
    """One attempt to be made: its id in the journal, its task, which sample it is, its seed, and help that is given with it."""

    id: str
    phase: str
    task: Task
    sample: int
    seed: int
    hint: str = ""


def parts(policy: Policy, run: Run) -> tuple[Model | None, Memory | None]:
    """The policy's model (None for the oracle, whose script depends on the task) and memory, opened once a run."""
    memory = None
    if policy.memory:
        folder = Path(policy.memory)
        # the run's own is written to by what it learns; another's is only read, by any number of runs at once
        recall_from = open_memory if folder.resolve().is_relative_to(run.folder.resolve()) else read_memory
        memory = run.part("memory", str(folder.resolve()), lambda: recall_from(folder))
    if policy.model == ORACLE:
        return None, memory
    adapter = Path(policy.adapter) / SERVING if policy.adapter else None

    def make() -> Model:
        return open_model(
            policy.model, api_base=policy.api_base, adapter=adapter, slots=run.workers, threads=policy.threads, budget=run.budget
        )

    return run.part("model", f"{policy.model} {policy.api_base} {adapter} {policy.threads}", make), memory


def lent(plan: Plan, policy: Policy, run: Run) -> Trajectory | None:
    """The very same attempt if another run has made it, charged as if it were made now."""
    if not run.lent or policy.adapter or policy.memory:
        return None
    found = run.lent.get(same(plan.task, plan.seed, plan.hint, policy.stamp()))
    if found is None:
        return None
    run.budget.attempt()
    with run.budget.reserve(found.usage.tokens, found.usage.usd) as book:
        book(found.usage)
    return found.model_copy(update=plan._asdict() | {"policy": policy.stamp()})


def attempt(plan: Plan, policy: Policy, model: Model | None, memory: Memory | None, run: Run) -> Trajectory:
    """Make one attempt in a world of its own. Whatever the world or the backend raises ends up in the trajectory.

    What is the user's to mend (a refused key, the budget's end) is raised as the AgentevolveError that it is.
    """
    run.budget.attempt()
    began, error = time.monotonic(), ""
    make = load_environment(plan.task.env)
    played = Attempt(plan.task, policy, memory, random.Random(plan.seed), plan.hint)
    try:
        with closing(make()) as played.environment:
            played.model = model or ScriptedModel(played.environment.oracle(plan.task))
            play(played)
    except AgentevolveError:
        if played.turns:
            run.lose(plan.id, sum((turn.usage for turn in played.turns), Usage()))
        raise
    except Exception as failure:  # the one boundary: a failed attempt is data, not a crash
        played.end, error = "error", f"{type(failure).__name__}: {failure}"[:500]
    return _trajectory(plan, played, error, time.monotonic() - began)


def _trajectory(plan: Plan, played: Attempt, error: str, seconds: float) -> Trajectory:
    return Trajectory(
        **plan._asdict(),
        policy=played.policy.stamp(),
        system=played.system,
        prompt=played.prompt,
        actions=played.actions,
        tools=played.tools,
        recalled=played.recalled,
        context=played.context,
        lookup=played.lookup,
        turns=tuple(played.turns),
        reward=played.reward,
        end=played.end,
        error=error,
        seconds=seconds,
    )


def _work(plans: Sequence[Plan], do: Callable[[Plan], None], run: Run, what: str) -> None:
    """Do every plan on the run's workers. After a failure or Ctrl-C no new one starts, and what is under way is awaited."""
    with progress(what, len(plans), quiet=run.quiet) as advance, ThreadPoolExecutor(run.workers) as pool:
        futures = [pool.submit(do, plan) for plan in plans]
        try:
            for future in as_completed(futures):
                future.result()
                advance("")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
