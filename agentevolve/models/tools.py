"""Tool calls as text: how a backend is asked for one, and what a world reads.

An action in a world of tools is the JSON of one call, {"name": …, "arguments": {…}}, or of a list of calls; any other text is
something said. So worlds, trajectories and training rows stay text, whatever a backend's own form of a tool call is.
A tool is described by OpenAI's function schema, with nothing referred to from outside it (no "$ref").
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from agentevolve.records import Message

Tool = dict[str, Any]


class Call(NamedTuple):
    """A tool's name and its arguments: a mapping, or whatever a model wrote instead."""

    name: str
    arguments: Any


def written(calls: Sequence[Call]) -> str:
    """The calls as an action."""
    values = [{"name": call.name, "arguments": call.arguments} for call in calls]
    return json.dumps(values[0] if len(values) == 1 else values, ensure_ascii=False)


def read(action: str) -> list[Call]:
    """The calls that an action makes; none when it is something said, or a call that nobody can make out."""
    try:
        value = json.loads(action)
    except (ValueError, RecursionError):
        return []
    calls = value if isinstance(value, list) else [value]
    if not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        return []
    return [Call(call["name"], call.get("arguments", {})) for call in calls]


def called(action: str, tools: Sequence[Tool]) -> list[Call]:
    """The calls that an action makes in a world of these tools, where all have arguments by name; else none, as in any other."""
    calls = read(action) if tools else []
    return calls if all(isinstance(call.arguments, dict) for call in calls) else []


def schema(tools: Sequence[Tool]) -> dict[str, Any]:
    """OpenAI's `response_format` for one call of one of the tools."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool["function"]["name"]}, "arguments": tool["function"]["parameters"]},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    return {"type": "json_schema", "json_schema": {"name": "call", "schema": {"anyOf": calls}}}


def native(messages: Sequence[Message]) -> Iterator[dict[str, Any]]:
    """The conversation in OpenAI's form: an action that calls tools as `tool_calls`, the observation after it as their results.

    One observation answers all calls of an action: it is given to the first of them, the others refer to it.
    """
    open_calls: list[str] = []
    for place, message in enumerate(messages):
        calls = read(message.content) if message.role == "assistant" else []
        if calls:
            open_calls = [f"call_{place}_{number}" for number in range(len(calls))]
            made = [_native_call(id, call) for id, call in zip(open_calls, calls, strict=True)]
            yield {"role": "assistant", "content": None, "tool_calls": made}
        elif open_calls and message.role == "user":
            for number, id in enumerate(open_calls):
                yield {"role": "tool", "tool_call_id": id, "content": "see the first result" if number else message.content}
            open_calls = []
        else:
            yield message.model_dump()


def sample(tools: Sequence[Tool], rng: random.Random) -> str:
    """A call drawn at random: one of the tools, each argument of the type that its schema asks for."""
    function = rng.choice(list(tools))["function"]
    wanted = function["parameters"].get("properties", {})
    return written([Call(function["name"], {name: _value(shape, rng) for name, shape in wanted.items()})])


def _native_call(id: str, call: Call) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {"id": id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _value(shape: dict[str, Any], rng: random.Random) -> Any:
    if "enum" in shape:
        return rng.choice(shape["enum"])
    if "anyOf" in shape:
        return _value(rng.choice(shape["anyOf"]), rng)
    plain = {
        "integer": rng.randint(0, 9),
        "number": rng.random(),
        "boolean": rng.random() < 0.5,
        "array": [],
        "object": {},
        "null": None,
    }
    return plain.get(shape.get("type", "string"), "")
