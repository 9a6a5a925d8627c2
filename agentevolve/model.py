"""The one model call of the house, through LiteLLM, with its cost, its limits and its retries.

`local/<name>` is served inside this process and called like any other backend; `random` and ScriptedModel need no model.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agentevolve.budget import Budget
from agentevolve.local import catalog, engine
from agentevolve.protocols import AgentevolveError, Model, Reply
from agentevolve.records import Message, Usage

TRIES = 4
EXAMPLES = "local/smollm2-135m, openai/gpt-5-mini, anthropic/claude-haiku-4-5, ollama_chat/llama3.2, hosted_vllm/<model>, random"


class ModelError(RuntimeError):
    """A backend failed or answered something unusable; the attempt that asked is lost, the run is not."""


class RandomModel:
    """Chooses uniformly among the admissible actions: the floor every policy is measured against."""

    name = "random"

    def complete(
        self,
        messages: Sequence[Message],
        *,
        choices: Sequence[str] = (),
        temperature: float = 0.0,
        max_tokens: int = 64,
        seed: int = 0,
    ) -> Reply:
        """One of `choices`, drawn by `seed`. Raises AgentevolveError without choices."""
        if not choices:
            raise AgentevolveError("the model 'random' needs an environment that lists its admissible actions")
        return Reply(random.Random(seed).choice(choices), Usage(calls=1))

    def close(self) -> None:
        """Nothing to give back."""


class ScriptedModel:
    """A deterministic model for tests and examples: replies from a list, in order, or from a function of the call.

    `calls` keeps what it was asked: (messages, choices). Its usage counts words as tokens.
    """

    name = "scripted"

    def __init__(self, replies: Sequence[str] | Callable[[Sequence[Message], Sequence[str]], str]) -> None:
        self.calls: list[tuple[tuple[Message, ...], tuple[str, ...]]] = []
        self._replies = replies
        self._lock = threading.Lock()

    def complete(
        self,
        messages: Sequence[Message],
        *,
        choices: Sequence[str] = (),
        temperature: float = 0.0,
        max_tokens: int = 64,
        seed: int = 0,
    ) -> Reply:
        """The next reply. Raises ModelError when the script is over."""
        with self._lock:
            turn = len(self.calls)
            self.calls.append((tuple(messages), tuple(choices)))
        text = self._replies(messages, choices) if callable(self._replies) else self._line(self._replies, turn)
        words = sum(len(message.content.split()) for message in messages)
        return Reply(text, Usage(calls=1, prompt_tokens=words, completion_tokens=len(text.split())))

    def _line(self, replies: Sequence[str], turn: int) -> str:
        if turn >= len(replies):
            raise ModelError(f"the script of {len(replies)} replies is over")
        return replies[turn]

    def close(self) -> None:
        """Nothing to give back."""


class LiteModel:
    """A model behind LiteLLM: a hosted one, a server at `api_base`, or a local engine started at the first call."""

    def __init__(
        self,
        name: str,
        *,
        api_base: str | None = None,
        start: Callable[[], engine.Engine] | None = None,
        budget: Budget | None = None,
        timeout: float = 120.0,
    ) -> None:
        self.name = name
        self._api_base, self._start = api_base, start
        self._budget, self._timeout = budget or Budget(), timeout
        self._engine: engine.Engine | None = None
        self._lock, self._thread, self._turn = threading.Lock(), threading.local(), itertools.count()
        self._plain = False

    def complete(
        self,
        messages: Sequence[Message],
        *,
        choices: Sequence[str] = (),
        temperature: float = 0.0,
        max_tokens: int = 64,
        seed: int = 0,
    ) -> Reply:
        """Answer `messages`.

        Raises BudgetExceeded before the call, AgentevolveError for what the user must mend (key, model name), else ModelError.
        """
        if choices:  # a constrained answer ends by itself; cut short it would be no choice at all
            max_tokens = max(max_tokens, 16 + max(len(choice.encode()) for choice in choices))
        asked = {"messages": [message.model_dump() for message in messages], "temperature": temperature}
        asked |= {"max_tokens": max_tokens, "seed": seed, "timeout": self._timeout}
        tokens = sum(len(message.content) for message in messages) // 3 + max_tokens
        with self._budget.reserve(tokens, self._price(tokens - max_tokens, max_tokens)) as book:
            began = time.monotonic()
            answer = self._ask(asked, choices)
            usage = self._usage(answer, time.monotonic() - began)
            book(usage)
        return Reply(_pick(_text(answer), choices), usage)

    def close(self) -> None:
        """Stop the local engine, if one runs. Closing twice is allowed; a later call starts it again."""
        with self._lock:
            if self._engine:
                self._engine.close()
            self._engine = None

    def _ask(self, asked: dict[str, Any], choices: Sequence[str]) -> Any:
        held = self._constraint(choices)
        try:
            return _send(self.name, asked | self._route() | held)
        except _litellm().BadRequestError as error:
            if not held or self._start or isinstance(error, _litellm().ContextWindowExceededError):
                raise ModelError(_line(self.name, error)) from None
        self._plain = True  # the backend refused the schema: ask for plain text from now on
        return self._ask(asked, choices)

    def _route(self) -> dict[str, Any]:
        if self._start is None:
            return {"model": self.name, "api_base": self._api_base} | self._no_key()
        with self._lock:
            if self._engine is None:
                self._engine = self._start()
            return {"model": "openai/local", "api_base": self._engine.url, "api_key": self._engine.key}

    def _no_key(self) -> dict[str, Any]:
        """A server of one's own often wants no key, but LiteLLM insists on one."""
        missing = self._api_base and _litellm().validate_environment(self.name)["missing_keys"]
        return {"api_key": "none"} if missing else {}

    def _constraint(self, choices: Sequence[str]) -> dict[str, Any]:
        if self._start:
            return {"extra_body": {"id_slot": self._slot()} | ({"grammar": engine.grammar(choices)} if choices else {})}
        if not choices or self._plain:
            return {}
        if self.name.startswith("hosted_vllm/"):
            return {"extra_body": {"structured_outputs": {"choice": list(choices)}}}
        if self._api_base or _litellm().supports_response_schema(self.name):
            return {"response_format": _schema(choices)}
        return {}

    def _slot(self) -> int:
        """One slot a worker thread, so that its growing conversation finds its own prompt cache."""
        if not hasattr(self._thread, "turn"):
            self._thread.turn = next(self._turn)
        return int(self._thread.turn) % (self._engine.slots if self._engine else 4)

    def _price(self, prompt: int, completion: int) -> float:
        if self._start:
            return 0.0
        try:
            return float(sum(_litellm().cost_per_token(self.name, prompt_tokens=prompt, completion_tokens=completion)))
        except Exception:  # LiteLLM raises bare exceptions for a model without a known price
            return 0.0

    def _usage(self, answer: Any, seconds: float) -> Usage:
        counted = getattr(answer, "usage", None)
        details = getattr(counted, "prompt_tokens_details", None)
        prompt, completion = getattr(counted, "prompt_tokens", 0) or 0, getattr(counted, "completion_tokens", 0) or 0
        return Usage(
            calls=1,
            prompt_tokens=prompt,
            cached_tokens=getattr(details, "cached_tokens", 0) or 0,
            completion_tokens=completion,
            seconds=seconds,
            usd=self._price(prompt, completion),
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
    """The model called `name`: `local/<name or path>`, `random` or a LiteLLM name `provider/model`.

    `adapter` is a GGUF LoRA file for a local model; `timeout` is in seconds a try.
    Raises AgentevolveError, before anything starts, for an unknown name or an adapter that has nothing to be put on.
    """
    if adapter and not name.startswith("local/"):
        raise AgentevolveError(f"an adapter needs a local model, not {name!r}")
    if name == "random":
        return RandomModel()
    if name.startswith("local/"):
        base = catalog.resolve(name.removeprefix("local/"))
        start = functools.partial(_serve, base, adapter, slots, threads)
        return LiteModel(name, start=start, budget=budget, timeout=timeout)
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
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else the import fetches prices from the network
    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.drop_params = True
    return litellm


def _send(name: str, call: dict[str, Any]) -> Any:
    """One LiteLLM call, tried again after passing failures with exponential backoff and jitter."""
    litellm = _litellm()
    passing = (
        litellm.RateLimitError,
        litellm.InternalServerError,
        litellm.ServiceUnavailableError,
        litellm.Timeout,
        litellm.APIConnectionError,
    )
    for attempt in itertools.count(1):
        try:
            return litellm.completion(**call, max_retries=0, num_retries=0)
        except (litellm.AuthenticationError, litellm.PermissionDeniedError):
            raise AgentevolveError(f"{name}: the backend refused the key; set this provider's key in the environment") from None
        except litellm.NotFoundError as error:
            raise AgentevolveError(_line(name, error)) from None
        except passing as error:
            if attempt == TRIES:
                raise ModelError(_line(name, error)) from None
        except litellm.APIError as error:
            raise ModelError(_line(name, error)) from None
        time.sleep(0.5 * 2**attempt * random.uniform(0.5, 1.0))


def _line(name: str, error: Exception) -> str:
    text = str(error).strip().splitlines() or [""]
    return f"{name}: {type(error).__name__}: {text[0][:300]}"


def _text(answer: Any) -> str:
    choices = getattr(answer, "choices", None)
    content = choices[0].message.content if choices else None
    if not content:
        raise ModelError("the model's answer has no text")
    return str(content)


def _schema(choices: Sequence[str]) -> dict[str, Any]:
    action = {"type": "string", "enum": list(choices)}
    shape = {"type": "object", "properties": {"action": action}, "required": ["action"], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "action", "strict": True, "schema": shape}}


def _pick(text: str, choices: Sequence[str]) -> str:
    """The choice that `text` means, or its first line when it means none."""
    if not choices:
        return text
    said = _said(text)
    plain = {_fold(choice): choice for choice in choices}
    if said in choices or _fold(said) in plain:
        return said if said in choices else plain[_fold(said)]
    found = [choice for fold, choice in plain.items() if re.search(rf"(?<!\w){re.escape(fold)}(?!\w)", said.casefold())]
    widest = [choice for choice in found if not any(choice != other and choice in other for other in found)]
    return widest[0] if len(widest) == 1 else said.strip().split("\n")[0]


def _said(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return text.strip()
    return str(value["action"]) if isinstance(value, dict) and "action" in value else text.strip()


def _fold(text: str) -> str:
    return text.casefold().strip(" \t\n\"'`*.")
