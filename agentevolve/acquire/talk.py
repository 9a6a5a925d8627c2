"""Two copies of one model in two roles talk a task over before it is attempted (survey 2404.14387, section 4.2.1, self-play)."""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.acquire.propose import train_only
from agentevolve.act.asking import ask
from agentevolve.act.prompting import render
from agentevolve.act.replay import replay
from agentevolve.policy import Policy
from agentevolve.records import Task
from agentevolve.run.folder import Run
from agentevolve.run.progress import progress

SAID = 80  # tokens of one turn of the talk


def talked_over(policy: Policy, tasks: Sequence[Task], run: Run, *, exchanges: int = 2) -> dict[str, str]:
    """For each task a hint, by task id: the plan with which a player and a coach end a talk of so many exchanges.

    Both are the policy's model. They know how the task begins and what the other said, and see no solution. A world or a
    backend that fails gives no hint. Ask once a round. Raises ValueError for a held-out task.
    """
    train_only(tasks)
    hints = {}
    with progress(f"round {run.round}: talking tasks over", len(tasks), quiet=run.quiet) as advance:
        for task in tasks:
            if plan := _plan(task, policy, run, exchanges):
                hints[task.id] = render("talked", plan=plan)
            advance("")
    return hints


def _plan(task: Task, policy: Policy, run: Run, exchanges: int) -> str:
    try:
        start = replay(task, []).start
    except Exception:  # the attempt will meet the same world, and say what is wrong with it
        return ""
    talk: list[tuple[str, str]] = []
    for role in [*("player", "coach") * exchanges, "plan"]:
        prompt = render("talk", start=start, talk=talk, role=role)
        said = ask(policy, run, f"talk/{run.round}/{task.id}/{len(talk)}", prompt, max_tokens=SAID)
        talk.append((role, " ".join(said.split())))
    return talk[-1][1]
