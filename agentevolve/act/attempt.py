"""One attempt: a plan, a policy and a world → a trajectory; a failing world or backend is data, not a crash."""

from __future__ import annotations

import errno
import random
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from agentevolve.act.agent import Attempt, play
from agentevolve.load import load_environment
from agentevolve.memory import open_memory, read_memory
from agentevolve.models.lite import open_model
from agentevolve.models.manner import Manner, how_said
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.models.usage import tokens_of
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError, Memory, Model, ModelError
from agentevolve.records import Task, Trajectory, Usage
from agentevolve.run.folder import MANNER, Run, same
from agentevolve.run.spans import span
from agentevolve.run.underway import doing

ORACLE = "oracle"  # a policy's `model` that replays the environment's own solution: the ceiling
SERVING = "adapter.gguf"
# what the machine lacks, not the world: space, quota, open files, memory
LACKING = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS}


class Plan(NamedTuple):
    """One attempt to be made: its id in the journal, its task, which sample it is, its seed, and help that is given with it."""

    id: str
    phase: str
    task: Task
    sample: int
    seed: int
    hint: str = ""


class Order(NamedTuple):
    """What the attempts of one rollout share: who acts, what it is called within the run, and whether it measures."""

    policy: Policy
    phase: str
    measured: bool = False


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
            policy.model,
            api_base=policy.api_base,
            adapter=adapter,
            slots=run.workers,
            threads=policy.threads,
            budget=run.budget,
            options=policy.options,
            prices=run.prices,
            manner=_manner(policy.model, run),
        )

    return run.part("model", f"{policy.model} {policy.api_base} {adapter} {policy.threads}", make), memory


def counter(policy: Policy, run: Run) -> Callable[[str], int]:
    """What counts a text's tokens as the policy's model does: what is written to be recalled has to fit by the same measure."""
    model, _ = parts(policy, run)
    return model.count if model else tokens_of


def _manner(model: str, run: Run) -> Manner:
    """How the model's backend wants to be asked, as far as the run knows: all its arms are asked alike, on resume too."""
    prefix = f"{MANNER}{model}/"

    def tell(what: str, why: str) -> None:
        run.once(prefix + what, lambda: why)
        print(f"{model}: {how_said(what)} ({why})", file=sys.stderr)

    return Manner([name.removeprefix(prefix) for name in list(run.facts) if name.startswith(prefix)], tell)


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


def attempt(
    plan: Plan,
    policy: Policy,
    model: Model | None,
    memory: Memory | None,
    run: Run,
    passing: set[str] | None = None,
    *,
    measured: bool = False,
) -> Trajectory:
    """Make one attempt in a world of its own. Whatever the world or the backend raises ends up in the trajectory.

    What is the user's to mend (a refused key, the budget's end, a full disk) is raised as the AgentevolveError that it is. An
    attempt that a passing failure cost is noted in `passing`; one that is `measured` sees no solution of its own task.
    """
    run.budget.attempt()
    began, error = time.monotonic(), ""
    make = load_environment(plan.task.env)
    played = Attempt(plan.task, policy, memory, random.Random(plan.seed), plan.hint, run.budget.alive, measured)
    try:
        told = span("invoke_agent", id=plan.id, attempt=played)
        with told, doing(run.making(plan.id)), closing(make()) as played.environment:
            played.model = model or ScriptedModel(played.environment.oracle(plan.task))
            play(played)
    except AgentevolveError:
        _give_up(plan, played, run)
        raise
    except (Exception, SystemExit) as failure:  # the one boundary: a failed attempt is data, not a crash
        if isinstance(failure, OSError) and failure.errno in LACKING:
            _give_up(plan, played, run)
            raise AgentevolveError(f"{plan.task.id}: this machine: {failure}") from None
        if passing is not None and isinstance(failure, ModelError) and failure.passing:
            passing.add(plan.id)
        run.budget.unmade()
        played.end, error = "error", f"{type(failure).__name__}: {failure}"[:500]
    return _trajectory(plan, played, error, time.monotonic() - began)


def _give_up(plan: Plan, played: Attempt, run: Run) -> None:
    """Journal what an attempt has cost that does not end."""
    run.budget.unmade()
    spent = sum((turn.usage for turn in played.turns), played.lookup + played.failed)
    if spent != Usage():
        run.lose(plan.id, spent)


def _trajectory(plan: Plan, played: Attempt, error: str, seconds: float) -> Trajectory:
    return Trajectory(
        **plan._asdict(),
        policy=played.policy.stamp(),
        system=played.system,
        prompt=played.prompt,
        actions=played.actions,
        tools=played.tools,
        recalled=played.recalled,
        demos=played.demos,
        context=played.context,
        looked=played.looked,
        lookup=played.lookup,
        failed=played.failed,
        asked=played.asked,
        turns=tuple(played.turns),
        reward=played.reward,
        end=played.end,
        error=error,
        seconds=seconds,
    )
