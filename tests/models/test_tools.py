"""Tool calls as text: what is read from an action, and what a backend is sent and answers."""

import json
import random

import pytest

from agentevolve.models.tools import Call, native, read, sample, schema, written
from agentevolve.records import Message


def tool(name: str, **properties) -> dict:
    return {
        "type": "function",
        "function": {"name": name, "description": "", "parameters": {"type": "object", "properties": properties}},
    }


TOOLS = [
    tool("look"),
    tool("go", where={"type": "string", "enum": ["north", "south"]}, steps={"type": "integer"}),
    tool("pay", amount={"anyOf": [{"type": "number"}, {"type": "null"}]}, to={"type": "array", "items": {"type": "string"}}),
]


@pytest.mark.parametrize(
    "calls", [[Call("go", {"where": "nörth 😀"})], [Call("a", {}), Call("b", {"x": [1, None, {"y": "\n"}]})]]
)
def test_calls_survive_being_written(calls):
    assert read(written(calls)) == calls


@pytest.mark.parametrize(
    "action",
    ["", "hello", "7", "null", '"go"', '{"name": 5}', '{"arguments": {}}', '[{"name": "a"}, 7]', '{"name": "a"', "[" * 100_000],
)
def test_what_is_no_call_is_something_said(action):
    assert read(action) == []


def test_missing_arguments_are_none_at_all_and_odd_ones_are_handed_on():
    assert read('{"name": "look"}') == [Call("look", {})]
    assert read('{"name": "look", "arguments": "now"}') == [Call("look", "now")]


def chat(*texts: str) -> list[Message]:
    roles = ["system", *["user", "assistant"] * len(texts)]
    return [Message(role=role, content=text) for role, text in zip(roles, texts, strict=False)]


def test_a_conversation_becomes_calls_and_their_results():
    one, two = written([Call("look", {})]), written([Call("go", {"where": "north"}), Call("look", {})])
    sent = list(native(chat("rules", "task", one, "a room", "I see", "go on", two, "a yard")))
    assert [message["role"] for message in sent] == [
        *("system", "user", "assistant", "tool", "assistant", "user", "assistant", "tool", "tool")
    ]
    assert sent[3]["content"] == "a room" and sent[3]["tool_call_id"] == sent[2]["tool_calls"][0]["id"]
    assert sent[4]["content"] == "I see"
    called = [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in sent[6]["tool_calls"]]
    assert called == [("go", {"where": "north"}), ("look", {})]
    assert [message["tool_call_id"] for message in sent[7:]] == [call["id"] for call in sent[6]["tool_calls"]]
    assert sent[7]["content"] == "a yard"
    ids = [call["id"] for message in sent for call in message.get("tool_calls", [])]
    assert len(set(ids)) == len(ids)


def test_a_random_call_is_one_that_the_schema_allows():
    rng, seen = random.Random(1), set()
    for _ in range(200):
        (call,) = read(sample(TOOLS, rng))
        seen.add(call.name)
        if call.name == "go":
            assert call.arguments["where"] in ("north", "south") and isinstance(call.arguments["steps"], int)
        if call.name == "pay":
            assert isinstance(call.arguments["amount"], float | None) and call.arguments["to"] == []
    assert seen == {"look", "go", "pay"}
    assert sample(TOOLS, random.Random(3)) == sample(TOOLS, random.Random(3))


def test_the_schema_allows_each_tool_with_its_own_arguments():
    forms = schema(TOOLS)["json_schema"]["schema"]["anyOf"]
    assert [form["properties"]["name"] for form in forms] == [{"const": "look"}, {"const": "go"}, {"const": "pay"}]
    assert [form["properties"]["arguments"] for form in forms] == [one["function"]["parameters"] for one in TOOLS]
