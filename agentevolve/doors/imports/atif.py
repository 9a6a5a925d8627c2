"""Trajectories of Harbor's Agent Trajectory Interchange Format, any version 1: one JSON file each.

Steps that were copied as context are left out: the format says that they are not to be trained on. So is what our own export says
was recalled. The reward is `extra.reward`, where somebody wrote one. One of our own at a held-out task is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from agentevolve.doors.imports.chats import ENV, Chat, Content, Said, acted, joined, parsed, whole
from agentevolve.given import checked
from agentevolve.models.tools import Call, Tool
from agentevolve.protocols import AgentevolveError


class Called(BaseModel):
    """A call of a tool."""

    function_name: str
    arguments: dict[str, Any]


class Ours(BaseModel):
    """What our own export says of a step or a result."""

    recalled: bool = False


class Beside(BaseModel):
    """What is said beside a result."""

    agentevolve: Ours = Ours()


class Result(BaseModel):
    """A part of what came back."""

    content: Content = []
    extra: Beside | None = None


class Observation(BaseModel):
    """What came back."""

    results: list[Result]


class Step(BaseModel):
    """One step, as far as it is read here."""

    source: Literal["system", "user", "agent"]
    message: Content
    reasoning_content: str | None = None
    tool_calls: list[Called] | None = None
    observation: Observation | None = None
    is_copied_context: bool | None = None


class Agent(BaseModel):
    """Who acted."""

    name: str
    model_name: str | None = None
    tool_definitions: list[dict[str, Any]] | None = None


class TaskOfOurs(BaseModel):
    """The task, in a trajectory of ours: only one to learn from may be learnt from."""

    split: Literal["train"] = "train"


class About(BaseModel):
    """What our own export says of a trajectory."""

    task: TaskOfOurs = TaskOfOurs()


class Extra(BaseModel):
    """What is said beside a trajectory."""

    reward: float | None = Field(default=None, ge=0, le=1)
    agentevolve: About = About()


class Told(BaseModel):
    """A trajectory, as far as it is read here."""

    schema_version: str = Field(pattern=r"^ATIF-v1\.\d+$")
    agent: Agent
    steps: list[Step] = Field(min_length=1)
    extra: Extra | None = None


def chats(data: bytes, path: Path) -> Iterator[Chat]:
    """The file's conversation. Raises AgentevolveError naming file and field, and the line of what is no JSON."""
    told = checked(Told, parsed(data, str(path)), path)
    tools = told.agent.tool_definitions or []
    for number, tool in enumerate(tools):
        if not isinstance(tool.get("function"), dict) or not isinstance(tool["function"].get("name"), str):
            raise AgentevolveError(f"{path}: agent.tool_definitions.{number}: not the schema of a function")
    reward = told.extra.reward if told.extra and told.extra.reward is not None else 1.0
    said = tuple(one for step in told.steps if not step.is_copied_context for one in _said(step))
    yield whole(Chat(said, _tools(tools), reward, told.agent.model_name or ENV), str(path))


def _tools(tools: Sequence[Tool]) -> tuple[Tool, ...]:
    return tuple({"type": "function", **tool} for tool in tools)


def _said(step: Step) -> Iterator[Said]:
    """What was said in the step, and what came back."""
    text, calls = joined(step.message), [Call(one.function_name, one.arguments) for one in step.tool_calls or ()]
    if step.source != "agent":
        yield Said("system" if step.source == "system" else "seen", text)
    elif text or calls:
        yield acted(text, calls, step.reasoning_content)
    results = step.observation.results if step.observation else []
    seen = [joined(one.content) for one in results if not (one.extra and one.extra.agentevolve.recalled)]
    if any(seen):
        yield Said("seen", "\n".join(part for part in seen if part))
