"""What is told of an attempt in the words of OpenTelemetry's conventions for GenAI: a name and attributes for each kind of span.

Tokens are on `chat` alone: viewers add up what the spans of a trace say. What was said, done and recalled is told with `content`
alone. What the conventions have no word for is under `agentevolve.`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agentevolve.models.tools import read
from agentevolve.records import SOLVED, Usage
from agentevolve.redact import plain
from agentevolve.run.spans import Kind

NAME = "agentevolve"
# the conventions' names of providers that LiteLLM names otherwise
PROVIDERS = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
Facts = dict[str, Any]


@cache
def version() -> str:
    """The version of this package."""
    return metadata.version(NAME)


def _agent(facts: Facts, content: bool) -> tuple[str, Facts]:
    """An attempt: `id` and `attempt`, which is filled in as it goes."""
    one = facts["attempt"]
    told = {
        "gen_ai.provider.name": _provider(one.policy.model),
        "gen_ai.agent.name": NAME,
        "gen_ai.agent.version": version(),
        "gen_ai.conversation.id": facts["id"],
        "gen_ai.request.model": one.policy.model,
        "gen_ai.request.temperature": one.policy.temperature,
        f"{NAME}.task.id": one.task.id,
        f"{NAME}.task.env": one.task.env,
        f"{NAME}.task.split": one.task.split,
        f"{NAME}.adapter": Path(one.policy.adapter).name if one.policy.adapter else None,
        f"{NAME}.recalled": list(one.recalled),
        f"{NAME}.turns": len(one.turns),
        f"{NAME}.reward": one.reward,
        f"{NAME}.solved": one.end != "error" and one.reward >= SOLVED,
        f"{NAME}.end": one.end,
    }
    return NAME, told


def _chat(facts: Facts, content: bool) -> tuple[str, Facts]:
    """A request: `model` and `request`; what came of it: `answer`, `said` (what was read of it) and `usage`."""
    request, answer, said = facts["request"], facts.get("answer"), facts.get("said")
    choices = getattr(answer, "choices", None) or []
    told = {
        "gen_ai.provider.name": _provider(facts["model"]),
        "gen_ai.request.model": facts["model"],
        "gen_ai.request.temperature": request.get("temperature"),
        "gen_ai.request.max_tokens": request.get("max_tokens") or request.get("max_completion_tokens"),
        "gen_ai.request.seed": request.get("seed"),
        "gen_ai.response.id": getattr(answer, "id", None),
        "gen_ai.response.model": getattr(answer, "model", None),
        "gen_ai.response.finish_reasons": [str(one.finish_reason) for one in choices] or None,
        "server.address": urlsplit(request["api_base"]).hostname if request.get("api_base") else None,
        **(spent(facts["usage"]) if "usage" in facts else {}),
    }
    if content:
        messages = request["messages"]
        told["gen_ai.input.messages"] = [_message(one) for one in messages if one["role"] != "system"]
        told["gen_ai.system_instructions"] = [_part(one["content"]) for one in messages if one["role"] == "system"]
        if said is not None:
            ended = {"finish_reason": str(choices[0].finish_reason)} if choices else {}
            told["gen_ai.output.messages"] = [{"role": "assistant", "parts": [_part(said.text)], **ended}]
    return facts["model"], told


def spent(usage: Usage) -> Facts:
    """What a request cost; nothing, where it cost nothing."""
    if not usage.calls:
        return {}
    return {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        f"{NAME}.usd": usage.usd,
    }


def _tool(facts: Facts, content: bool) -> tuple[str, Facts]:
    """An action in the world `env`; with `tools` the first of them that it calls; what came of it: `step`."""
    calls, step = read(facts["action"]) if facts["tools"] else [], facts.get("step")
    name = calls[0].name if calls else "step"
    told = {"gen_ai.tool.name": name, "gen_ai.tool.type": "function", f"{NAME}.task.env": facts["env"]}
    if step is not None:
        told |= {f"{NAME}.reward": step.reward, f"{NAME}.over": step.terminated or step.truncated}
    if content:
        told["gen_ai.tool.call.arguments"] = calls[0].arguments if calls else facts["action"]
        told["gen_ai.tool.call.result"] = step.observation if step is not None else None
    return name, told


def _search(facts: Facts, content: bool) -> tuple[str, Facts]:
    """A look into memory: `memory`, `query`; what was found: `looked`."""
    shown = [one for one in facts.get("looked", ()) if one.shown]
    name, told = _memory(facts["memory"], [one.id for one in shown])
    if content:
        told["gen_ai.memory.query.text"] = facts["query"]
        told["gen_ai.memory.records"] = [{"id": one.id, "score": one.similarity} for one in shown]
    return name, told


def _create(facts: Facts, content: bool) -> tuple[str, Facts]:
    """What is remembered: `memory`, `entries`."""
    entries = facts["entries"]
    name, told = _memory(facts["memory"], [one.id for one in entries])
    if content:
        told["gen_ai.memory.records"] = [
            {"id": one.id, "content": one.text, "metadata": {"kind": one.kind, "env": one.env, "key": one.key}} for one in entries
        ]
    return name, told


def _memory(folder: str | Path, ids: Sequence[str]) -> tuple[str, Facts]:
    place = Path(folder)
    store = f"{place.parent.name}/{place.name}"  # which run's it is; not where on this machine
    one = ids[0] if len(ids) == 1 else None
    return store, {
        "gen_ai.provider.name": NAME,
        "gen_ai.memory.store.id": store,
        "gen_ai.memory.record.id": one,
        "gen_ai.memory.record.count": len(ids),
        f"{NAME}.recalled": list(ids),
    }


DESCRIBED: dict[Kind, Callable[[Facts, bool], tuple[str, Facts]]] = {
    "invoke_agent": _agent,
    "chat": _chat,
    "execute_tool": _tool,
    "search_memory": _search,
    "create_memory": _create,
}


def _provider(model: str) -> str:
    first, slash, _ = model.partition("/")
    return PROVIDERS.get(first, first) if slash else NAME


def _part(content: Any) -> Facts:
    return {"type": "text", "content": content if isinstance(content, str) else json.dumps(content)}


def _message(one: Facts) -> Facts:
    parts = [_part(one["content"])] if one.get("content") else []
    for call in one.get("tool_calls") or ():
        function = call["function"]
        parts.append({"type": "tool_call", "id": call["id"], "name": function["name"], "arguments": function["arguments"]})
    return {"role": one["role"], "parts": parts}


def value(told: Any) -> Any:
    """The value, redacted, as OpenTelemetry takes it: texts, numbers and lists of texts; what is deeper as JSON."""
    told = plain(told)
    texts = isinstance(told, list) and all(isinstance(one, str) for one in told)
    return json.dumps(told, ensure_ascii=False) if isinstance(told, list | dict) and not texts else told
