"""Rows for TRL's trainers, conversational, as JSONL: a file for each split.

{"prompt": [message, …], "completion": [message], "id": …, "task": …, "reward": …}            for SFTTrainer
{"prompt": [message, …], "chosen": [message, …], "rejected": [message, …], "id": …}           for DPOTrainer

A row is one action of a solved attempt, after all that came before it: so what SFTTrainer learns by default, the completion,
is what the agent said, and never what its world answered. A preference is the best attempt at a task over its worst, from the
first action to the last one: there TRL counts the observations between them, too. As in `distill`, hints and recalled text are
stripped (records.py), tools are listed in the system message, and calls are the JSON that the agent writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from agentevolve.act.prompting import conversation
from agentevolve.doors.exports.chosen import Files, Origin, lines
from agentevolve.protocols import AgentevolveError
from agentevolve.records import SPLITS, Message, Trajectory
from agentevolve.refine import best_worst
from agentevolve.update import preferences

Row = dict[str, Any]


def actions(attempts: Sequence[Trajectory], origin: Origin) -> Files:
    """A row for each action of the attempts, which are solved ones."""
    return _by_split(attempts, lambda mine: [row for one in mine for row in _actions(one)], "no attempt with an action")


def preferred(attempts: Sequence[Trajectory], origin: Origin) -> Files:
    """A row for each task whose attempts differ in their rewards."""
    return _by_split(attempts, _preferred, "no two attempts at one task with different rewards")


def _by_split(attempts: Sequence[Trajectory], make: Callable[[list[Trajectory]], list[Row]], none: str) -> Files:
    """A file for each split. Raises AgentevolveError when no row is made at all."""
    made = {split: make([one for one in attempts if one.task.split == split]) for split in SPLITS}
    if not any(made.values()):
        raise AgentevolveError(f"{none}, so there is no row to train on")
    yield from ((f"{split}.jsonl", lines(rows)) for split, rows in made.items() if rows)


def _actions(one: Trajectory) -> Iterable[Row]:
    prompt, said = conversation(one, keep_context=False)
    for place in range(0, len(said), 2):
        yield {
            "prompt": _messages([*prompt, *said[:place]]),
            "completion": _messages(said[place : place + 1]),
            "id": f"{one.id}:{place // 2 + 1}",
            "task": one.task.id,
            "reward": one.reward,
        }


def _preferred(attempts: list[Trajectory]) -> list[Row]:
    # held-out attempts are here only when their split was named: that is the user's word, where the house would refuse
    given = [one.model_copy(update={"task": one.task.model_copy(update={"split": "train"})}) for one in attempts]
    return [
        {
            "prompt": _messages(row.prompt),
            "chosen": _messages(row.completion),
            "rejected": _messages(row.rejected or ()),
            "id": row.id,
        }
        for row in preferences(best_worst([one for one in given if one.turns]))
    ]


def _messages(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
