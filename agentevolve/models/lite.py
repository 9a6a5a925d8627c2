"""The one model call of the house, through LiteLLM, with its cost, its limits and its retries.

`local/<name>` is served inside this process and called like any other backend; `random` and ScriptedModel need no model.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from agentevolve.local import catalog
from agentevolve.local.rows import cleaned
from agentevolve.models.choices import pick
from agentevolve.models.choices import schema as choices_schema
from agentevolve.models.engines import llama_cpp as engine
from agentevolve.models.stand_ins import Choices, Messages, RandomModel
from agentevolve.models.tools import Tool, native, said
from agentevolve.models.tools import schema as tools_schema
from agentevolve.protocols import AgentevolveError, Model, ModelError, Reply
from agentevolve.records import Usage
from agentevolve.run.budget import Budget

TRIES = 4
EXAMPLES = "local/smollm2-135m, openai/gpt-5-mini, anthropic/claude-haiku-4-5, ollama_chat/llama3.2, hosted_vllm/<model>, random"


class LiteModel:
    """A model behind LiteLLM: a hosted one, a server at `api_base`, or a local engine that `start` starts at the first call.

    `special` gives the control tokens of its tokenizer, where that is known: they are broken up in every message.
    """

    def __init__(
        self,
        name: str,
        *,
        api_base: str | None = None,
        start: Callable[[], engine.Engine] | None = None,
        special: Callable[[], Collection[str]] = tuple,
        budget: Budget | None = None,
        timeout: float = 120.0,
    ) -> None:
        self.name = name
        self._api_base, self._start, self._special, self._timeout = api_base, start, special, timeout
        self._budget = budget or Budget()
        self._engine: engine.Engine | None = None
        self._lock, self._thread, self._threads = threading.Lock(), threading.local(), itertools.count()
        self._plain = False

    @property
    def native_tools(self) -> bool:
        """Whether LiteLLM knows that the model takes tools; any other is held to the JSON of a call."""
        return self._start is None and bool(_litellm().supports_function_calling(self.name))

    def complete(
        self,
        messages: Messages,
        *,
        choices: Choices = (),
        tools: Sequence[Tool] = (),
        temperature: float = 0.0,
        max_tokens: int = 1024,
        seed: int = 0,
    ) -> Reply:
        """Answer `messages`; an answer held to `choices` may be as long as the longest of them, whatever `max_tokens`.

        Raises BudgetExceeded before the call, AgentevolveError for what the user must mend (key, model name), else ModelError.
        """
        if choices:
            longest = 16 + max(len(choice.encode()) for choice in choices)
            max_tokens = longest if self._start else max(max_tokens, longest)
        messages = cleaned(messages, self._special())
        by_tools = bool(tools) and self.native_tools
        shown = list(native(messages)) if by_tools else [message.model_dump() for message in messages]
        call = self._route() | {"messages": shown, "timeout": self._timeout}
        call |= {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
        prompt = (sum(len(message.content) for message in messages) + len(json.dumps(tools))) // 3
        with self._budget.reserve(prompt + max_tokens, self._estimate(prompt, max_tokens)) as book:
            began = time.monotonic()
            answer = self._ask(call, self._tools(tools) if by_tools else self._held(choices, tools))
            usage = self._usage(answer, time.monotonic() - began)
            book(usage)
        return Reply(pick(_text(answer), choices), usage)

    def close(self) -> None:
        """Stop the local engine, if one runs. Closing twice is allowed; a later call starts it again."""
        with self._lock:
            if self._engine:
                self._engine.close()
            self._engine = None

    def _route(self) -> dict[str, Any]:
        if self._start is None:
            return {"model": self.name} | self._own_server()
        with self._lock:
            self._engine = self._engine or self._start()
            return {"model": "openai/local", "api_base": self._engine.url, "api_key": self._engine.key}

    def _own_server(self) -> dict[str, Any]:
        """A server of one's own often wants no key, but LiteLLM insists on one."""
        if not self._api_base:
            return {}
        return {"api_base": self._api_base} | ({"api_key": "none"} if _missing_keys(self.name) else {})

    def _ask(self, call: dict[str, Any], held: dict[str, Any]) -> Any:
        try:
            return _send(self.name, call | held)
        except ModelError as error:
            if "response_format" not in held or error.status not in (400, 422):
                raise
        answer = _send(self.name, call)
        self._plain = True  # the backend takes the request without the schema only: ask for plain text from now on
        return answer

    def _tools(self, tools: Sequence[Tool]) -> dict[str, Any]:
        """One call at a time: what comes back of it may decide the next one."""
        # without the last, LiteLLM imports its MCP gateway, whose packages it does not bring
        return {"tools": list(tools), "parallel_tool_calls": False, "_skip_mcp_handler": True}

    def _held(self, choices: Choices, tools: Sequence[Tool]) -> dict[str, Any]:
        """What holds the answer to `choices`, or to a call of `tools`, in the strictest way that the backend knows."""
        form = choices_schema(choices) if choices else tools_schema(tools) if tools else None
        if self._engine:
            body = {"id_slot": self._slot(self._engine)} | ({"grammar": engine.grammar(choices)} if choices else {})
            return {"extra_body": body} | ({"response_format": form} if form and not choices else {})
        if not form or self._plain:
            return {}
        if choices and self.name.startswith("hosted_vllm/"):
            return {"extra_body": {"structured_outputs": {"choice": list(choices)}}}
        held = self._api_base or _litellm().supports_response_schema(self.name)
        return {"response_format": form} if held else {}

    def _slot(self, engine: engine.Engine) -> int:
        """One slot a thread, so that a growing conversation finds its own prompt cache."""
        if not hasattr(self._thread, "number"):
            self._thread.number = next(self._threads)
        return int(self._thread.number) % engine.slots

    def _estimate(self, prompt: int, completion: int) -> float:
        """USD; 0 for a model without a known price."""
        prices = (0.0, 0.0) if self._start else _prices(self.name)
        return prompt * prices[0] + completion * prices[1]

    def _usage(self, answer: Any, seconds: float) -> Usage:
        counted = answer.usage
        details = getattr(counted, "prompt_tokens_details", None)
        priced = any(_prices(self.name)) if self._start is None else False
        return Usage(
            calls=1,
            prompt_tokens=counted.prompt_tokens or 0,
            cached_tokens=getattr(details, "cached_tokens", None) or 0,
            completion_tokens=counted.completion_tokens or 0,
            seconds=seconds,
            usd=_litellm().completion_cost(answer, model=self.name) if priced else 0.0,
        )


def open_model(
    name: str,
    *,
    api_base: str | None = None,
    adapter: Path | None = None,
    slots: int = 4,
    threads: int | None = None,
    budget: Budget | None = None,
    timeout: float = 120.0,
) -> Model:
    """The model called `name`: `local/<name or path>`, `random` or LiteLLM's `provider/model`.

    `adapter` is a GGUF LoRA file for a local model; `slots` and `threads` are the local engine's; `timeout` is in seconds a try.
    Raises AgentevolveError, before anything starts, for an unknown name or an adapter that has nothing to be put on.
    """
    if adapter and not name.startswith("local/"):
        raise AgentevolveError(f"an adapter needs a local model, not {name!r}")
    if name == "random":
        return RandomModel()
    if name.startswith("local/"):
        base = catalog.resolve(name.removeprefix("local/"))
        start = functools.partial(_serve, base, adapter, slots, threads)
        special = functools.partial(catalog.special_tokens, base)
        return LiteModel(name, start=start, special=special, budget=budget, timeout=timeout)
    litellm = _litellm()
    try:
        litellm.get_llm_provider(name, api_base=api_base)
    except litellm.BadRequestError:
        raise AgentevolveError(f"unknown model {name!r}: no such provider; known are for example {EXAMPLES}") from None
    return LiteModel(name, api_base=api_base, budget=budget, timeout=timeout)


def _serve(base: catalog.LocalModel, adapter: Path | None, slots: int, threads: int | None) -> engine.Engine:
    return engine.serve(catalog.serving_gguf(base), adapter=adapter, slots=slots, threads=threads)


@functools.cache
def _litellm() -> Any:
    for table in ("MODEL_COST_MAP", "ANTHROPIC_BETA_HEADERS"):  # else fetched from the network
        os.environ[f"LITELLM_LOCAL_{table}"] = "True"
    os.environ.setdefault("LITELLM_LOG", "ERROR")  # else it warns about models that it has no price for
    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.drop_params = True
    return litellm


@functools.cache
def _prices(name: str) -> tuple[float, float]:
    """USD a prompt token and a completion token; zeros when LiteLLM knows no price."""
    try:
        info = _litellm().get_model_info(name)
    except Exception:  # LiteLLM raises a bare Exception for a model that it has no entry for
        return 0.0, 0.0
    return info.get("input_cost_per_token") or 0.0, info.get("output_cost_per_token") or 0.0


def _missing_keys(name: str) -> list[str]:
    return [key for key in _litellm().validate_environment(name)["missing_keys"] if key.endswith("_API_KEY")]


def _send(name: str, call: dict[str, Any]) -> Any:
    """One LiteLLM call, tried again after a passing failure.

    LiteLLM's own retries are off: they repeat without a pause, and also what can never succeed.
    """
    litellm = _litellm()
    import openai  # every LiteLLM error is one of its errors

    for attempt in itertools.count(1):
        try:
            return litellm.completion(**call, max_retries=0, num_retries=0)
        except openai.OpenAIError as error:
            status = int(getattr(error, "status_code", None) or 500)
            _raise_for_user(name, call, status)
            if attempt == TRIES or (status < 500 and status not in (408, 409, 429)):
                raise ModelError(_line(name, error), status) from None
        pause = (2.0 if status == 429 else 0.25) * 2 ** (attempt - 1)
        time.sleep(pause * random.uniform(0.5, 1.5))


def _raise_for_user(name: str, call: dict[str, Any], status: int) -> None:
    missing = [] if "api_key" in call else _missing_keys(name)
    if status in (401, 403) or (missing and status >= 500):
        key = f"{', '.join(missing)} is not set" if missing else "check its API key"
        raise AgentevolveError(f"{name}: the backend refused access ({status}): {key}")
    if status == 404:
        raise AgentevolveError(f"{name}: the backend knows no such model or address (404)")


def _line(name: str, error: Exception) -> str:
    """The error on one line, short and without any key that the backend may have echoed."""
    text = " ".join(str(error).split())
    for key, value in os.environ.items():
        if key.endswith(("_KEY", "_TOKEN")) and len(value) >= 8:
            text = text.replace(value, "<key>")
    return f"{name}: {text[:300]}"


def _text(answer: Any) -> str:
    text = said(answer.choices[0].message) if answer.choices else ""
    if not text:
        raise ModelError("the model's answer has no text")
    return text
