"""New tasks by example (survey 2404.14387, section 4.1, knowledge-based and knowledge-free).

A task is an environment, a seed and settings. The model writes settings, as JSON; the seed, and with it the split, is one of a
train task's, so that no new task is cut from a held-out part of the world.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from agentevolve.act.asking import ask
from agentevolve.act.prompting import render
from agentevolve.policy import Policy
from agentevolve.records import Task
from agentevolve.run.folder import Run
from agentevolve.run.progress import progress

SHOWN = 8  # tasks in the context of one proposal (Self-Instruct, 2212.10560)


def propose(policy: Policy, tasks: Sequence[Task], run: Run, n: int, *, knowledge: str = "", objective: str = "") -> list[Task]:
    """At most `n` tasks that the model thinks up, each after up to 8 of the given ones; `validated` says which can be played.

    `knowledge` is a description of the world (`load.manual`), `objective` what is to be practised next (`evaluate.assess`).
    What an answer leaves out of the settings stays as in the task that lends its seed; an answer that is no JSON object is
    dropped. Ask once a round. Raises ValueError for a held-out task.
    """
    train_only(tasks)
    made = []
    with progress(f"round {run.round}: proposing tasks", n, quiet=run.quiet) as advance:
        for number in range(n if tasks else 0):
            rng = run.rng("propose", run.round, number)
            shown = rng.sample(list(tasks), min(SHOWN, len(tasks)))
            settings = list(dict.fromkeys(written(task.data) for task in shown))
            prompt = render("propose", settings=settings, knowledge=knowledge, objective=objective)
            data = read(ask(policy, run, f"propose/{run.round}/{number}", prompt))
            if data:
                parent = rng.choice(shown)
                made.append(evolved(parent, parent.data | data))
            advance("")
    return made


def evolved(parent: Task, data: dict[str, Any]) -> Task:
    """The task of other settings in its parent's world and seed; its id says whose child it is and is the same again."""
    mark = hashlib.sha256(written(data).encode()).hexdigest()[:8]
    return parent.model_copy(update={"id": f"{parent.id.partition('+')[0]}+{mark}", "data": data})


def written(data: Any) -> str:
    """Settings as the model reads them."""
    return json.dumps(data, sort_keys=True, ensure_ascii=False)


def read(said: str) -> dict[str, Any]:
    """The first JSON object in an answer, whatever stands around it; an empty one where there is none."""
    try:
        value, _ = json.JSONDecoder(parse_constant=_refuse).raw_decode(said[said.find("{") :])
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def train_only(tasks: Sequence[Task]) -> None:
    """Raise ValueError when a held-out task is among them: nothing new is made from it, and nobody talks about it."""
    if leaked := [task.id for task in tasks if task.split != "train"]:
        raise ValueError(f"held-out tasks may not be practised: {', '.join(leaked[:3])}")
