"""Known tasks made harder or broader, one setting at a time (Evol-Instruct, 2304.12244; survey section 4.1, knowledge-free)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from agentevolve.acquire.propose import evolved, train_only, written
from agentevolve.act.asking import ask
from agentevolve.act.prompting import render
from agentevolve.load import check_settings
from agentevolve.models.reading import read_reply
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Task
from agentevolve.run.folder import Run
from agentevolve.run.progress import progress

DEEPER = ("constrain", "deepen", "concretise", "reason")
BROADER = "broaden"


def mutate(policy: Policy, tasks: Sequence[Task], run: Run) -> list[Task]:
    """For each task one that differs in one number or flag of its settings: a random one of four ways to deepen, one to broaden.

    The model is held to the changes that the environment's `check` lets pass: a step up or down to deepen, half or double to
    broaden, a flag to its opposite. Which way is harder is for the model to say. A task without such settings, or an answer
    that is none of them, gives nothing. Ask once a round. Raises ValueError for a held-out task.
    """
    train_only(tasks)
    made = []
    with progress(f"round {run.round}: changing tasks", len(tasks), quiet=run.quiet) as advance:
        for task in tasks:
            rng = run.rng("mutate", run.round, task.id)
            way = rng.choice((*DEEPER, BROADER))
            changes = dict(_changes(task, way))
            options = rng.sample(list(changes), len(changes))  # a place in the list means nothing
            if options:
                prompt = render("mutate", settings=written(task.data), way=way, changes=options)
                said = ask(policy, run, f"mutate/{run.round}/{task.id}", prompt, choices=options)
                if (chosen := read_reply({"content": said}, choices=options).text) in changes:
                    made.append(evolved(task, changes[chosen]))
            advance("")
    return made


def _changes(task: Task, way: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each change that leaves the settings well-formed, as the model reads it, with the settings after it."""
    for path, value in _leaves(task.data):
        for other in _others(value, way):
            data = _with(task.data, path, other)
            try:
                check_settings(task.env, data)
            except AgentevolveError:
                continue
            yield f"{'.'.join(path)}: {written(other)}", data


def _leaves(data: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in data.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _others(value: Any, way: str) -> list[Any]:
    """The values that a leaf may change to: numbers stay on their side of zero; texts and lists stay as they are."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        near = (value // 2, value * 2) if way == BROADER else (value - 1, value + 1)
        return [other for other in dict.fromkeys(near) if other != value and (other >= 0 or value < 0)]
    return [value / 2, value * 2] if isinstance(value, float) and value else []


def _with(data: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    first, *rest = path
    return data | {first: _with(data[first], tuple(rest), value) if rest else value}
