"""Rows of TRL's forms, JSONL: messages; prompt and completion, labelled or not; chosen and rejected, with a prompt or not.

Conversational rows, and plain ones, whose prompt is the user's and whose completion the agent's. Every answer of the agent in a
row becomes an action, those in its prompt too. `tools` are function schemas, or the JSON of them; `reward`, in [0, 1], says what
came of it, as does `label`; without either it is solved. Of a pair the rejected one is an attempt with no reward.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from agentevolve.doors.imports.chats import Chat, Content, Said, acted, joined, parsed, place, whole
from agentevolve.given import checked
from agentevolve.models.tools import Call
from agentevolve.protocols import AgentevolveError


def _from_json(value: Any) -> Any:
    """What a text of JSON says; any other text, and any other value, as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


class Function(BaseModel):
    """What is called, with what: by name, or as the JSON of that."""

    name: str
    arguments: Annotated[dict[str, Any], BeforeValidator(_from_json)] = {}


class ToolCall(BaseModel):
    """One call."""

    function: Function


class Message(BaseModel):
    """One message of OpenAI's form."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content = []
    tool_calls: list[ToolCall] | None = None
    reasoning_content: str | None = None


class Named(BaseModel):
    """A function that can be called, as far as it is read here."""

    name: str


class Schema(BaseModel):
    """A function's schema, as far as it is read here."""

    function: Named


def _of(role: str) -> BeforeValidator:
    return BeforeValidator(lambda value: [{"role": role, "content": value}] if isinstance(value, str) else value)


Asked = Annotated[list[Message], _of("user")]
Answered = Annotated[list[Message], _of("assistant")]


class Row(BaseModel):
    """A row of any of the forms; other columns are passed over."""

    messages: list[Message] | None = None
    prompt: Asked | None = None
    completion: Answered | None = None
    chosen: Answered | None = None
    rejected: Answered | None = None
    label: bool | None = None
    reward: float | None = Field(default=None, ge=0, le=1)
    tools: Annotated[list[Schema] | None, BeforeValidator(_from_json)] = None


def chats(data: bytes, path: Path) -> Iterator[Chat]:
    """The conversations of the file's rows. Raises AgentevolveError naming file, line and field."""
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            yield from _row(parsed(line, place(path, number)), place(path, number), number)


def _row(values: dict[str, Any], where: str, number: int) -> Iterator[Chat]:
    row = checked(Row, values, where)
    tools = _from_json(values.get("tools")) or ()
    prompt = row.prompt or []
    if row.chosen is not None and row.rejected is not None:
        found = [(prompt + row.chosen, 1.0), (prompt + row.rejected, 0.0)]
    elif row.completion is not None or row.messages is not None:
        labelled = 1.0 if row.label is None else float(row.label)
        said = prompt + row.completion if row.completion is not None else row.messages or []
        found = [(said, labelled if row.reward is None else row.reward)]
    else:
        raise AgentevolveError(f"{where}: no messages, no prompt with a completion, and no chosen with a rejected in it")
    for messages, reward in found:
        yield whole(Chat(_said(messages), tuple(tools), reward, line=number), where)


def _said(messages: Sequence[Message]) -> tuple[Said, ...]:
    return tuple(_one(message) for message in messages)


def _one(message: Message) -> Said:
    text = joined(message.content)
    if message.role == "assistant":
        calls = [Call(call.function.name, call.function.arguments) for call in message.tool_calls or ()]
        return acted(text, calls, message.reasoning_content)
    return Said("system" if message.role in ("system", "developer") else "seen", text)
