"""Harbor's Agent Trajectory Interchange Format: one JSON file a trajectory, validated by `harbor.utils.trajectory_validator`.

What the agent was shown of memory, and a hint, are steps or results of their own that say so (`is_copied_context`: not to be
trained on): the earlier attempts as the turns that they were, then what was told before the task. A world's answer is the
observation of the step that it answers; an action that calls tools is that step's `tool_calls`. What has no field of the format
(task, reward, how it ended) is under `extra.agentevolve`; the reward is `extra.reward`, too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from agentevolve.act.prompting import opening, shown
from agentevolve.doors.exports.chosen import Files, Origin, text
from agentevolve.local.rows import clean
from agentevolve.memory.form import quoted
from agentevolve.models.tools import called
from agentevolve.records import Message, Trajectory, Turn, Usage

SCHEMA = "ATIF-v1.8"
Object = dict[str, Any]
RECALLED = {"agentevolve": {"recalled": True}}


def trajectories(attempts: Sequence[Trajectory], origin: Origin) -> Files:
    """A file for each attempt, named by its number and id."""
    for number, one in enumerate(attempts, 1):
        yield f"{number:05}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', one.id)[-80:]}.json", text(trajectory(one, origin.run), 1)


def trajectory(one: Trajectory, run: str) -> Object:
    """The attempt as a trajectory of ATIF."""
    steps = [*_opening(one), *(step for turn in one.turns for step in _turn(one, turn))]
    about = {
        "task": {"id": one.task.id, "env": one.task.env, "split": one.task.split, "seed": one.task.seed},
        "phase": one.phase,
        "sample": one.sample,
        "recalled": list(one.recalled),
        "reward": one.reward,
        "solved": one.solved,
        "end": one.end,
        "error": one.error,
    }
    return {
        "schema_version": SCHEMA,
        "session_id": run,
        "trajectory_id": one.id,
        "agent": _agent(one),
        "steps": [{"step_id": number, **step} for number, step in enumerate(steps, 1)],
        "final_metrics": {f"total_{name}": value for name, value in _metrics(one.usage).items()} | {"total_steps": len(steps)},
        "extra": {"reward": one.reward, "agentevolve": about},
    }


def _agent(one: Trajectory) -> Object:
    tools = {"tool_definitions": list(one.tools)} if one.tools else {}
    acted = {"adapter": one.policy.adapter or "", "round": one.policy.round, "temperature": one.policy.temperature}
    return {"name": "agentevolve", "version": version("agentevolve"), "model_name": one.policy.model, **tools, "extra": acted}


def _opening(one: Trajectory) -> list[Object]:
    """The steps before the first action: the house rules, what was recalled, the hint, the task."""
    asked = shown(one.prompt, one.actions, one.policy.show_actions)
    system, *demos, prompt = opening(one.system, "", asked, one.demos)
    told = [{"source": "user", "message": clean(part), **_copied()} for part in (one.context, one.hint) if part]
    earlier = [{"source": _source(message), "message": message.content, **_copied()} for message in demos]
    rules = [{"source": "system", "message": system.content}] if system.content else []
    return [*rules, *earlier, *told, {"source": "user", "message": prompt.content}]


def _copied() -> Object:
    return {"is_copied_context": True, "extra": RECALLED}


def _source(message: Message) -> str:
    return "agent" if message.role == "assistant" else message.role


def _turn(one: Trajectory, turn: Turn) -> list[Object]:
    """The step of an action, with what came back as its observation."""
    calls = [
        {"tool_call_id": f"call_{number}", "function_name": call.name, "arguments": call.arguments}
        for number, call in enumerate(called(turn.action, one.tools), 1)
    ]
    step: Object = {"source": "agent", "message": "" if calls else clean(turn.action), "llm_call_count": turn.usage.calls}
    if turn.usage.calls:  # else nobody was asked: the action was drawn at random, or is the world's own solution
        step |= {"metrics": _metrics(turn.usage)} | ({"reasoning_content": turn.thinking} if turn.thinking else {})
    if calls:
        step["tool_calls"] = calls
    seen: Object = {"content": clean(quoted(shown(turn.observation, turn.actions, one.policy.show_actions)))}
    if calls:
        seen["source_call_id"] = calls[0]["tool_call_id"]  # one observation answers all calls of an action
    recalled = [{"content": clean(turn.context), "extra": RECALLED}] if turn.context else []
    return [step | {"observation": {"results": [*recalled, seen]}, "extra": {"reward": turn.reward}}]


def _metrics(usage: Usage) -> Object:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "cost_usd": usage.usd,
    }
