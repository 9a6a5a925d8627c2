"""A conversation that an agent had elsewhere, and the attempt that it is here."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator

from agentevolve.act.prompting import cleaned_tools, rules
from agentevolve.models.tools import Call, Tool, written
from agentevolve.protocols import AgentevolveError
from agentevolve.records import PolicyStamp, Task, Trajectory, Turn

ENV = "imported"


class Said(NamedTuple):
    """Something that was said: `seen` by the agent is what user, tools and world said."""

    role: Literal["system", "seen", "agent"]
    text: str
    thinking: str = ""


class Chat(NamedTuple):
    """A conversation, the tools in it, what came of it in [0, 1], who acted, and the line of the file where it is (0: all)."""

    said: tuple[Said, ...]
    tools: tuple[Tool, ...] = ()
    reward: float = 1.0
    model: str = ENV
    line: int = 0


class Part(BaseModel):
    """A part of a message: text alone is taken in."""

    type: Literal["text"] = "text"
    text: str


def _parts(content: Any) -> Any:
    return [] if content is None else [{"text": content}] if isinstance(content, str) else content


Content = Annotated[list[Part], BeforeValidator(_parts)]


def joined(content: Sequence[Part]) -> str:
    """The text of all parts."""
    return "\n".join(part.text for part in content)


def acted(text: str, calls: Sequence[Call], thinking: str | None) -> Said:
    """What an agent said: its calls, as an action of ours; what it said beside them is what it thought."""
    if not calls:
        return Said("agent", text, thinking or "")
    return Said("agent", written(calls), "\n".join(part for part in (thinking, text) if part))


def parsed(data: bytes, where: str) -> dict[str, Any]:
    """The JSON object. Raises AgentevolveError naming `where`, with the line in it, for what is none."""
    try:
        value = json.loads(data)
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if error.lineno > 1 else ""
        raise AgentevolveError(f"{where}{line}: not JSON: {error.msg} (character {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise AgentevolveError(f"{where}: not JSON: {str(error)[:100]}") from None
    if not isinstance(value, dict):
        raise AgentevolveError(f"{where}: a {type(value).__name__}, not an object")
    return value


def whole(chat: Chat, where: str) -> Chat:
    """The conversation. Raises AgentevolveError for one in which no agent acts on anything."""
    roles = [one.role for one in chat.said if one.role != "system"]
    if "agent" not in roles:
        raise AgentevolveError(f"{where}: no agent says anything in it: there is nothing to learn")
    if roles[0] == "agent":
        raise AgentevolveError(f"{where}: an agent speaks first: there is nothing that it was asked")
    return chat


def attempts_alone(chats: Sequence[Chat]) -> list[Chat]:
    """The conversations but those that are the beginning of another one: rows a turn become the attempt that they are of."""
    longer = {start for chat in chats for start in _starts(chat)}
    return [chat for chat in chats if _mark(chat, len(chat.said)) not in longer]


def _starts(chat: Chat) -> Iterator[str]:
    """The marks of the conversation's beginnings that end with an action."""
    for place, one in enumerate(chat.said[:-1], 1):
        if one.role == "agent":
            yield _mark(chat, place)


def _mark(chat: Chat, length: int) -> str:
    return _digest([chat.reward, chat.said[:length]])


def lived(chat: Chat, about: dict[str, Any]) -> Trajectory:
    """The conversation as an attempt at a train task: what was asked, then each action and what came back."""
    told = "\n".join(one.text for one in chat.said if one.role == "system")
    after = [one for one in chat.said if one.role != "system"]
    first = next(place for place, one in enumerate(after) if one.role == "agent")
    prompt, tools = "\n".join(one.text for one in after[:first]), cleaned_tools(chat.tools)
    turns = _turns(after[first:], chat.reward)
    system, instructions = _rules(told, tools)
    task = Task(
        id=f"{ENV}/{_digest([told, prompt])}",
        env=ENV,
        split="train",
        data={"imported": about | ({"line": chat.line} if chat.line else {})},
    )
    return Trajectory(
        id=f"import/{task.id}/{_digest([chat.reward, [turn.model_dump() for turn in turns]])}",
        task=task,
        policy=PolicyStamp(model=chat.model, show_actions=False, instructions=instructions),
        phase="import",
        system=system,
        prompt=prompt,
        tools=tools,
        turns=tuple(turns),
        reward=chat.reward,
        end="terminated",
    )


def _rules(told: str, tools: Sequence[Tool]) -> tuple[str, str]:
    """The system message, and what in it are instructions beside the house's rules.

    With tools the rules say how a call is written; without anything told they are all that there is, as for what acts here.
    """
    if told and not tools:
        return told, ""
    house = functools.partial(rules, tools, choosing=False, listed=False)
    own = told.removeprefix(house(instructions="")).strip()  # a trajectory of ours has them already
    return house(instructions=own), own


def _turns(said: Sequence[Said], reward: float) -> list[Turn]:
    turns: list[Turn] = []
    for one in said:
        if one.role == "agent":
            turns.append(Turn(action=one.text, thinking=one.thinking, observation=""))
        else:
            seen = "\n".join(part for part in (turns[-1].observation, one.text) if part)
            turns[-1] = turns[-1].model_copy(update={"observation": seen})
    turns[-1] = turns[-1].model_copy(update={"reward": reward})
    return turns


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def place(path: Path, line: int) -> str:
    """Where in a file of rows."""
    return f"{path}:{line}"
