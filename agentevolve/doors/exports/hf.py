"""A folder that `datasets.load_dataset` loads, and that may be put on the hub: JSONL a split, and a card that says its columns.

A row is an attempt. `messages` are what was said, without hint and recalled text, which have columns of their own (records.py);
the observation after the last action is the last of them. The splits are the tasks' own: `val` is called "validation" there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agentevolve.act.prompting import lived_through
from agentevolve.doors.exports.chosen import Files, Origin, lines, round_of
from agentevolve.records import Split, Trajectory

SPLIT: dict[Split, str] = {"train": "train", "val": "validation", "test": "test"}
MESSAGES = {"list": [{"name": "role", "dtype": "string"}, {"name": "content", "dtype": "string"}]}
COLUMNS: dict[str, Any] = {
    "id": "string",
    "task": "string",
    "env": "string",
    "seed": "int64",
    "phase": "string",
    "round": "int64",
    "sample": "int64",
    "model": "string",
    "adapter": "string",
    "messages": MESSAGES,
    "tools": "string",
    "recalled": {"list": "string"},
    "context": "string",
    "hint": "string",
    "reward": "float64",
    "solved": "bool",
    "end": "string",
    "error": "string",
    "turns": "int64",
    "prompt_tokens": "int64",
    "completion_tokens": "int64",
    "usd": "float64",
    "seconds": "float64",
}
SAID = """
# {run}

{count} attempts of an LLM agent at tasks, exported from an agentevolve run. A row is an attempt: `messages` without what was
recalled (`context`, `recalled`) and without help with it (`hint`); `tools` are the functions it could call, as JSON.
Where `end` is "error" the attempt was lost for a reason outside the agent, and has no outcome.
`validation` and `test` are held-out tasks: not to be trained on.
"""


def dataset(attempts: Sequence[Trajectory], origin: Origin) -> Files:
    """The card and a file for each split."""
    by_split = {name: [one for one in attempts if one.task.split == split] for split, name in SPLIT.items()}
    found = {name: made for name, made in by_split.items() if made}
    yield "README.md", _card({name: len(made) for name, made in found.items()}, origin)
    for name, made in found.items():
        yield f"data/{name}.jsonl", lines([_row(one) for one in made])


def _row(one: Trajectory) -> dict[str, Any]:
    before, turns = lived_through(one.bare().model_copy(update={"hint": ""}))
    messages = [*before, *(message for both in turns for message in both)]
    usage = one.usage
    return {
        "id": one.id,
        "task": one.task.id,
        "env": one.task.env,
        "seed": one.task.seed,
        "phase": one.phase,
        "round": round_of(one),
        "sample": one.sample,
        "model": one.policy.model,
        "adapter": one.policy.adapter or "",
        "messages": [{"role": message.role, "content": message.content} for message in messages],
        "tools": json.dumps(one.tools) if one.tools else "",
        "recalled": list(one.recalled),
        "context": one.context,
        "hint": one.hint,
        "reward": one.reward,
        "solved": one.solved,
        "end": one.end,
        "error": one.error,
        "turns": len(one.turns),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "usd": usage.usd,
        "seconds": one.seconds,
    }


def _card(counts: dict[str, int], origin: Origin) -> str:
    """The card: its head says where the files are and what is in them, so that nothing has to be guessed from the rows."""
    features = [{"name": name, **(kind if isinstance(kind, dict) else {"dtype": kind})} for name, kind in COLUMNS.items()]
    splits = [{"name": name, "num_examples": count} for name, count in counts.items()]
    files = [{"split": name, "path": f"data/{name}.jsonl"} for name in counts]
    head = {
        "pretty_name": origin.run,
        "tags": ["agentevolve", "agent-trajectories"],
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {"features": features, "splits": splits},
    }
    said = "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in head.items())  # YAML, too
    return f"---\n{said}---\n{SAID.format(run=origin.run, count=sum(counts.values()))}"
