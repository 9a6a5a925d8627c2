"""Inspect AI's logs, as plain `.json`: one a task set and phase of the run (an arm's measurement, a round's acquiring).

A sample is an attempt: its id the task's, its epoch the number of the attempt at that task, its scores `solved` and `reward`. An
attempt that was lost is a sample with an error, and has no scores. The messages are what the agent saw and said, with hint and
recalled text; calls of tools are Inspect's own. `inspect log convert --to eval` makes its compressed form of a log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from importlib.metadata import version
from typing import Any

from agentevolve.act.prompting import lived_through
from agentevolve.doors.exports.chosen import Files, Origin, task_set, text
from agentevolve.models.tools import called
from agentevolve.records import Message, Trajectory, Usage

Object = dict[str, Any]


def logs(attempts: Sequence[Trajectory], origin: Origin) -> Files:
    """A log for each task set and phase, named as Inspect names its own."""
    found: dict[tuple[str, ...], list[Trajectory]] = {}
    for one in attempts:
        run = one.id.removesuffix(f"{one.phase}/{one.task.id}/{one.sample}")  # the seed's folder, of several seeds
        found.setdefault((task_set(one), run + one.phase), []).append(one)
    for (name, phase), made in found.items():
        id = sha256(json.dumps([origin.run, name, phase]).encode("utf-8", "surrogatepass")).hexdigest()[:22]
        named = re.sub(r"[^A-Za-z0-9.]+", "-", f"{name}-{phase}")[:80]
        yield f"{origin.written:%Y-%m-%dT%H-%M-%S+00-00}_{named}_{id}.json", text(_log(made, name, phase, id, origin), 1)


def _log(made: Sequence[Trajectory], name: str, phase: str, id: str, origin: Origin) -> Object:
    ids = list(dict.fromkeys(one.task.id for one in made))
    policy = made[0].policy
    spec = {
        "eval_id": id,
        "run_id": origin.run,
        "created": origin.written.isoformat(timespec="seconds"),
        "task": name,
        "task_id": id,
        "task_display_name": f"{name}, {phase}",
        "tags": [phase],
        "dataset": {"name": name, "samples": len(ids), "sample_ids": ids},
        "model": policy.model,
        "model_generate_config": {"temperature": policy.temperature},
        "config": {"epochs": 1 + max(one.sample for one in made)},
        "packages": {"agentevolve": version("agentevolve")},
        "metadata": {"phase": phase, "adapter": policy.adapter, "round": policy.round, "seed": made[0].seed},
        "scorers": [{"name": "solved"}, {"name": "reward"}],
    }
    return {
        "version": 2,
        "status": "success",
        "eval": spec,
        "plan": {"name": "agentevolve", "steps": [{"solver": "agentevolve", "params": {}}]},
        "results": _results(made),
        "stats": {"model_usage": _used(made)},
        "samples": [_sample(one) for one in made],
    }


def _results(made: Sequence[Trajectory]) -> Object:
    lived = [one for one in made if not one.lost]
    values = {"solved": [float(one.solved) for one in lived], "reward": [one.reward for one in lived]}
    metric = {"solved": "accuracy", "reward": "mean"}
    scores = [
        {
            "name": name,
            "scorer": name,
            "scored_samples": len(lived),
            "unscored_samples": len(made) - len(lived),
            "metrics": {metric[name]: {"name": metric[name], "value": sum(found) / len(found)}},
        }
        for name, found in values.items()
        if found
    ]
    return {"total_samples": len(made), "completed_samples": len(lived), "scores": scores}


def _sample(one: Trajectory) -> Object:
    before, turns = lived_through(one)
    messages = _messages(before, turns, one)
    about = {"phase": one.phase, "end": one.end, "seed": one.seed, "recalled": list(one.recalled), "env": one.task.env}
    answers = [message for message in messages if message["role"] == "assistant"]
    sample: Object = {
        "id": one.task.id,
        "epoch": one.sample + 1,
        "input": [_message(message) for message in before],
        "target": "",
        "messages": messages,
        "output": {"model": one.policy.model, "choices": [{"message": last, "stop_reason": "stop"} for last in answers[-1:]]},
        "metadata": about,
        "model_usage": _used([one]),
        "total_time": one.seconds,
        "uuid": one.id,
    }
    if one.lost:
        return sample | {"error": {"message": one.error, "traceback": one.error, "traceback_ansi": one.error}}
    return sample | {"scores": {"solved": {"value": "C" if one.solved else "I"}, "reward": {"value": one.reward}}}


def _messages(before: Iterable[Message], turns: Iterable[tuple[Message, Message]], one: Trajectory) -> list[Object]:
    found = [_message(message) for message in before]
    for number, (said, seen) in enumerate(turns, 1):
        calls = [
            {"id": f"call_{number}_{place}", "function": call.name, "arguments": call.arguments, "type": "function"}
            for place, call in enumerate(called(said.content, one.tools), 1)
        ]
        found.append(_message(said) | ({"content": _content(said, ""), "tool_calls": calls} if calls else {}))
        answers = [{"role": "tool", "tool_call_id": call["id"], "function": call["function"], "content": ""} for call in calls]
        if answers:
            answers[0]["content"] = seen.content  # one observation answers all calls of an action
        found += answers or [_message(seen)]
    return found


def _message(message: Message) -> Object:
    return {"role": message.role, "content": _content(message, message.content)}


def _content(message: Message, said: str) -> str | list[Object]:
    if not message.thinking:
        return said
    return [{"type": "reasoning", "reasoning": message.thinking}, {"type": "text", "text": said}]


def _used(made: Sequence[Trajectory]) -> Object:
    """By model, what the attempts cost in tokens; Inspect counts those that came from a cache by themselves."""
    spent: dict[str, Usage] = {}
    for one in made:
        spent[one.policy.model] = spent.get(one.policy.model, Usage()) + one.usage
    return {
        model: {
            "input_tokens": usage.prompt_tokens - usage.cached_tokens,
            "input_tokens_cache_read": usage.cached_tokens,
            "output_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            "total_cost": usage.usd,
        }
        for model, usage in spent.items()
    }
