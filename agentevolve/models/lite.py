"""The one model call of the house, through LiteLLM, with its cost, its limits and its retries.

`local/<name>` is served inside this process and called like any other backend; `random` and ScriptedModel need no model.
"""

from __future__ import annotations

import functools
import itertools
import random
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from agentevolve.local import catalog
from agentevolve.local.rows import alternating, clean, cleaned, without_system
from agentevolve.models.addresses import Addresses, addresses
from agentevolve.models.backend import completion, info, litellm, missing_keys, within
from agentevolve.models.choices import schema as choices_schema
from agentevolve.models.engines import Engine, prove
from agentevolve.models.engines.vllm import Refused
from agentevolve.models.manner import Manner, overflows
from agentevolve.models.reading import FAILURES, Read, read_reply
from agentevolve.models.stand_ins import Choices, Messages, RandomModel
from agentevolve.models.tools import Tool
from agentevolve.models.tools import native as native_form
from agentevolve.models.tools import schema as tools_schema
from agentevolve.models.trouble import Trouble, refused, trouble
from agentevolve.models.usage import counted, estimated, known_price, size, tokens_of
from agentevolve.policy import ModelOptions, Price
from agentevolve.protocols import AgentevolveError, Model, ModelError, Reply
from agentevolve.records import Usage
from agentevolve.run.budget import Budget
from agentevolve.run.spans import span
from agentevolve.run.underway import task_under_way

LONGEST_WAIT = 60.0  # seconds between two tries, whatever the backend asks for
UNUSABLE = 3  # tries of a call whose answers are paid for and cannot be used
STRIKES = 8  # calls in a row that came to nothing: the backend is away, and every further attempt would be lost
MOST = 24  # tries of one call, whatever they are for
DEMANDING = ("deepseek/", "moonshot/")  # they want the thinking before a tool call sent back
LOCAL, VLLM = "local/", "vllm/"
EXAMPLES = "local/smollm2-135m, openai/gpt-5-mini, anthropic/claude-haiku-4-5, ollama_chat/llama3.2, hosted_vllm/<model>, random"


class _Failed(Exception):
    """A try that came to nothing: why, what it cost, and whether it was answered with what nobody can use."""

    def __init__(self, why: Trouble, usage: Usage, *, unusable: bool = False) -> None:
        super().__init__(why.text)
        self.why, self.usage, self.unusable = why, usage, unusable


class _Tally:
    """The tries of one call so far: how many, how many of them were paid for nothing, what they cost, and how it is held now."""

    def __init__(self) -> None:
        self.tries, self.unusable, self.refusals, self.spent = 0, 0, 0, Usage()
        self.plain = False

    def add(self, failed: _Failed) -> None:
        """Count a try that came to nothing."""
        self.tries += 1
        self.unusable += failed.unusable
        self.spent += failed.usage


class LiteModel:
    """A model behind LiteLLM: a hosted one, servers at `api_bases`, or a local engine that `start` starts at the first call.

    `start` is given the address that the engine is to be at, or "" for one of this process, and starts one for each.

    `release` gives back what was claimed for it from its opening on. `special` gives the control tokens of its tokenizer, where
    that is known: they are broken up in every message.
    """

    def __init__(
        self,
        name: str,
        *,
        api_bases: Sequence[str] = (),
        start: Callable[[str], Engine] | None = None,
        release: Callable[[], None] = lambda: None,
        special: Callable[[], Collection[str]] = tuple,
        budget: Budget | None = None,
        options: ModelOptions | None = None,
        price: Price | None = None,
        manner: Manner | None = None,
    ) -> None:
        self.name = name
        self._start, self._release, self._special, self._price = start, release, special, price
        self._addresses = Addresses(api_bases)
        self._budget, self._options, self._manner = budget or Budget(), options or ModelOptions(), manner or Manner()
        self._engines: dict[str, Engine] = {}
        self._lock, self._thread, self._threads = threading.Lock(), threading.local(), itertools.count()
        self._strikes, self._answers = 0, 0

    @property
    def native_tools(self) -> bool:
        """Whether LiteLLM knows that the model takes tools; any other is held to the JSON of a call."""
        return self._start is None and bool(litellm().supports_function_calling(self.name))

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

        Raises BudgetExceeded before the call, AgentevolveError for what the user must mend (key, credit, model name, a backend
        that is away), else ModelError; either says in `usage` what was paid for nothing.
        """
        if choices:
            longest = 16 + max(len(choice.encode()) for choice in choices)
            max_tokens = longest if self._start else max(max_tokens, longest)
        messages = cleaned(messages, self._special())
        asked = {"temperature": temperature, "max_tokens": max_tokens}
        self._ready()  # an engine that is to hold the answer runs
        way, held = self._held(choices, tools)
        tally = _Tally()
        try:
            while True:
                # what was answered, but could not be used, is asked for with other luck from the second time on
                asked["seed"] = seed + max(0, tally.unusable - 1)
                with self._addresses.one(task_under_way()) as url:
                    call = self._call(messages, tools, url) | asked
                    request = self._manner.fitted(_joined(call, {} if tally.plain else held))
                    try:
                        with self._sent(url):
                            read, usage = self._once(request, choices, tools)
                        self._addresses.answered(url)
                        break
                    except _Failed as failed:
                        tally.add(failed)
                        if failed.why.kind == "passing" and not failed.why.answered:
                            self._addresses.failed(url)
                        what = failed
                self._after(request, way, what, tally)
        except (AgentevolveError, ModelError) as error:
            error.usage = tally.spent
            raise
        self._strikes, self._answers = 0, self._answers + 1
        if tally.plain:
            self._manner.doubt(way, "it answers only when asked without")
        plain = tally.plain or self._manner.has(way)
        return Reply(read.text, tally.spent + usage, read.thinking, ("free text" if plain else way) + self._manner.said)

    def count(self, text: str) -> int:
        """The tokens of `text`: by the local engine's tokenizer, else about a quarter of its characters."""
        if self._start is None:
            return tokens_of(text)
        return self._ready().count(clean(text, self._special()))  # type: ignore[union-attr]

    def close(self) -> None:
        """Stop the local engine, if one runs and nobody else holds it. Closing twice is allowed; a later call starts it again."""
        with self._lock:
            for engine in self._engines.values():
                engine.close()
            self._engines = {}
            self._release()

    def _call(self, messages: Messages, tools: Sequence[Tool], url: str) -> dict[str, Any]:
        """The request but for what holds the answer, to the server at `url`, if there are any."""
        options = self._options
        if self._manner.has("system"):
            messages = without_system(messages)
        call = self._route(url) | {"messages": self._shown(messages, tools), "timeout": options.timeout}
        if options.reasoning_effort:
            call |= {"reasoning_effort": options.reasoning_effort, "allowed_openai_params": ["reasoning_effort"]}
        if options.headers:
            call["extra_headers"] = options.headers
        return call | ({"extra_body": dict(options.body)} if options.body else {})

    def _shown(self, messages: Messages, tools: Sequence[Tool]) -> list[dict[str, Any]]:
        by_tools = bool(tools) and self.native_tools
        if by_tools:
            shown = list(native_form(messages))
        else:
            shown = [{"role": message.role, "content": message.content} for message in alternating(messages)]
        if self._manner.has("reasoning_content") or (by_tools and self.name.startswith(DEMANDING)):
            thoughts = [message.thinking for message in messages if message.role == "assistant"]
            answers = [one for one in shown if one["role"] == "assistant"]
            for one, thought in zip(answers, thoughts, strict=True):
                one["reasoning_content"] = thought
        return shown

    def _ready(self) -> Engine | None:
        """One of the engines, all of which run now; None where the model is not ours to serve."""
        if self._start is None:
            return None
        with self._lock:
            if not self._engines:
                self._engines = _started(self._start, self._addresses.urls or ("",))
                self._addresses = Addresses([url for url in self._engines if url])
            return next(iter(self._engines.values()))

    def _sent(self, url: str) -> AbstractContextManager[None]:
        """What a request to the server at `url` is sent within."""
        engine = self._engines.get(url)
        return engine.call() if engine else nullcontext()

    def _route(self, url: str) -> dict[str, Any]:
        if self._start is None:
            return {"model": self.name} | (self._own_server | {"api_base": url} if url else {})
        self._ready()
        return self._engines[url].route

    @functools.cached_property
    def _own_server(self) -> dict[str, Any]:
        """A server of one's own often wants no key, but LiteLLM insists on one."""
        return {"api_key": "none"} if missing_keys(self.name) else {}

    def _held(self, choices: Choices, tools: Sequence[Tool]) -> tuple[str, dict[str, Any]]:
        """What holds the answer to `choices`, or to a call of `tools`, in the backend's strictest way; the way's name first."""
        if tools and self.native_tools:
            # one call at a time: what comes back of it may decide the next one; without the last, LiteLLM imports its MCP
            # gateway, whose packages it does not bring
            return "tools", {"tools": list(tools), "parallel_tool_calls": False, "_skip_mcp_handler": True}
        form = choices_schema(choices) if choices else tools_schema(tools) if tools else None
        if engine := self._ready():
            return engine.held(choices, form, self._slot())
        if choices and self.name.startswith("hosted_vllm/"):
            return "structured_outputs", {"extra_body": {"structured_outputs": {"choice": list(choices)}}}
        if form and (self._addresses.urls or litellm().supports_response_schema(self.name)):
            return "response_format", {"response_format": form}
        return "free text", {}

    def _slot(self) -> int:
        """One slot a thread, so that a growing conversation finds its own prompt cache."""
        if not hasattr(self._thread, "number"):
            self._thread.number = next(self._threads)
        return int(self._thread.number)

    def _once(self, request: dict[str, Any], choices: Choices, tools: Sequence[Tool]) -> tuple[Read, Usage]:
        """One try: the answer as it is read, and what it cost. Raises _Failed."""
        characters = size(request["messages"], request.get("tools", ()))
        limit = request.get("max_tokens") or request["max_completion_tokens"]
        most = Usage(prompt_tokens=characters // 3, completion_tokens=limit)
        told = span("chat", model=self.name, request=request)
        with told, self._budget.reserve(most.tokens, self._usd(most)) as book:
            began = time.monotonic()
            try:
                answer = within(self._options.timeout, lambda: completion(request, self._options.stream), self._budget)
            except Exception as error:  # whatever LiteLLM makes of an odd answer
                if isinstance(error, AgentevolveError):
                    raise
                missing = [] if "api_key" in request else missing_keys(self.name)
                why = trouble(self.name, error, missing)
                usage = self._paid(estimated(characters), began) if why.answered else Usage()
                book(usage)
                raise _Failed(why, usage) from None
            read = _read(answer, choices, tools)
            usage = self._paid(counted(getattr(answer, "usage", None), characters, read.text + read.thinking), began)
            book(usage)
            told.set(answer=answer, said=read, usage=usage)
        if read.failure:
            raise _Failed(Trouble("passing", 200, f"{self.name}: {FAILURES[read.failure]}"), usage, unusable=True)
        return read, usage

    def _after(self, request: dict[str, Any], way: str, failed: _Failed, tally: _Tally) -> None:
        """Return when the call is to be tried again, after a pause where one is due; else raise."""
        why = failed.why
        if why.kind == "mend":
            raise AgentevolveError(why.text)
        if why.kind == "forbidden" and not self._answers:
            raise AgentevolveError(refused(self.name, why.status, []))
        if tally.tries < MOST and not failed.unusable:
            if self._manner.learn(request, why.status, why.text):
                return
            if self._doubtful(why, way, tally):
                return
        more = tally.unusable < UNUSABLE if failed.unusable else tally.tries < self._options.tries
        if why.kind == "passing" and more and tally.tries < MOST:
            self._pause(why, tally.tries)
            return
        self._lost(why, tally)

    def _doubtful(self, why: Trouble, way: str, tally: _Tally) -> bool:
        """Whether the schema may be what is refused, unnamed: the same is sent once more, then without it for this call alone."""
        unnamed = why.kind == "lasting" and why.status in (400, 422) and not overflows(why.text)
        if way not in ("response_format", "structured_outputs") or tally.plain or not unnamed:
            return False
        tally.refusals += 1
        tally.plain = tally.refusals > 1
        return True

    def _pause(self, why: Trouble, tries: int) -> None:
        slower = 4 if why.status == 429 else 1
        wait = why.wait if why.wait is not None else self._options.pause * slower * 2 ** (tries - 1) * random.uniform(0.5, 1.5)
        self._budget.rest(min(wait, LONGEST_WAIT))

    def _lost(self, why: Trouble, tally: _Tally) -> None:
        """The attempt is lost; when nothing but losses came of many calls in a row, the run is ended instead."""
        with self._lock:
            self._strikes += 1
            strikes = self._strikes
        if strikes >= STRIKES:
            said = refused(self.name, why.status, []) if why.status == 403 else why.text
            raise AgentevolveError(f"{strikes} calls in a row came to nothing, the last one: {said}; mend it and go on")
        raise ModelError(why.text, why.status, passing=why.kind == "passing")

    def _usd(self, usage: Usage) -> float:
        """USD; 0 for a model without a known price."""
        price = self._price or (None if self._start else known_price(info(self.name)))
        return price.of(usage) if price else 0.0

    def _paid(self, usage: Usage, began: float) -> Usage:
        return usage.model_copy(update={"seconds": time.monotonic() - began, "usd": self._usd(usage)})


def open_model(
    name: str,
    *,
    api_base: str | None = None,
    adapter: Path | None = None,
    slots: int = 4,
    threads: int | None = None,
    budget: Budget | None = None,
    options: ModelOptions | None = None,
    prices: Mapping[str, Price] | None = None,
    manner: Manner | None = None,
) -> Model:
    """The model called `name`: `local/<name or path>`, `random` or LiteLLM's `provider/model`.

    `vllm/<folder or id on the hub>` is a vLLM server that has these weights: the one at `api_base`, or a child of this process.
    `api_base` may name several servers, with commas between: a task keeps to one, and one that fails is left out for a while.
    `adapter` is a GGUF LoRA file for either, in an adapter's folder but for a GGUF model; `slots` and `threads` are the local
    engine's. `prices` are by model name.
    Raises AgentevolveError, before anything starts, for an unknown name, an adapter that has nothing to be put on, or a limit in
    dollars where no price is known.
    """
    if adapter and not here(name):
        raise AgentevolveError(f"an adapter needs a local model, not {name!r}: local/… or vllm/…")
    if name == "random":
        return RandomModel()
    price = (prices or {}).get(name)
    if here(name):
        base = base_of(name)
        special = functools.cache(functools.partial(catalog.special_tokens, base))
        given = functools.partial(LiteModel, name, special=special, budget=budget, options=options, price=price, manner=manner)
        if name.startswith(LOCAL) and base.gguf:
            from agentevolve.models.engines import bases

            hold = bases.hold(base, adapter, slots, threads)
            return given(start=lambda _: hold.start(), release=hold.close)
        if name.startswith(VLLM):
            return given(
                api_bases=addresses(api_base), start=lambda url: _proven(functools.partial(_on_vllm, url), base, adapter)
            )
        return given(start=lambda _: _proven(functools.partial(_by_torch, threads), base, adapter))
    lite = litellm()
    try:
        lite.get_llm_provider(name, api_base=next(iter(addresses(api_base)), None))
    except lite.BadRequestError:
        raise AgentevolveError(f"unknown model {name!r}: no such provider; known are for example {EXAMPLES}") from None
    if budget and budget.max_usd is not None and not (price or known_price(info(name))):
        raise AgentevolveError(
            f"max_usd: no price of {name} is known, so a limit in dollars would not bind; give one, in dollars a million tokens:"
            f' prices: {{"{name}": {{input: 0.5, output: 1.5}}}}, or --price 0.5,1.5'
        )
    return LiteModel(name, api_bases=addresses(api_base), budget=budget, options=options, price=price, manner=manner)


def here(name: str) -> bool:
    """Whether the model's weights are on this machine, so that they can be fine-tuned."""
    return name.startswith((LOCAL, VLLM))


def base_of(name: str) -> catalog.LocalModel:
    """The weights of a model of that name which are on this machine. Raises AgentevolveError for any other backend."""
    if name.startswith(VLLM):
        return catalog.resolve_weights(name.removeprefix(VLLM))
    if name.startswith(LOCAL):
        return catalog.resolve(name.removeprefix(LOCAL))
    known = f"local/{', local/'.join(catalog.names())}, vllm/<folder or id on the hub>"
    raise AgentevolveError(f"only a local model can be fine-tuned, not {name!r}; known: {known}")


def _started(start: Callable[[str], Engine], urls: Sequence[str]) -> dict[str, Engine]:
    """An engine at each address, proven; addresses at which nobody answers are left out, unless all are."""
    found: dict[str, Engine] = {}
    try:
        for url in urls:
            try:
                found[url] = start(url)
            except Refused as error:
                if error.status or len(urls) == 1 or (url == urls[-1] and not found):
                    raise
                print(f"left out: {error}", file=sys.stderr)
    except BaseException:
        for engine in found.values():
            engine.close()
        raise
    return found


def _on_vllm(url: str, base: catalog.LocalModel, adapter: Path | None) -> Engine:
    from agentevolve.models.engines import vllm

    return vllm.attach(url, base, adapter) if url else vllm.child(base, adapter)


def _by_torch(threads: int | None, base: catalog.LocalModel, adapter: Path | None) -> Engine:
    from agentevolve.models.engines import transformers

    assert base.folder
    return transformers.serve(base.folder, adapter=adapter, threads=threads)


def _proven(start: Callable[[catalog.LocalModel, Path | None], Engine], base: catalog.LocalModel, adapter: Path | None) -> Engine:
    """The engine of the base and the adapter's folder, if it answers with these weights; else it is closed."""
    running = start(base, adapter.parent if adapter else None)
    try:
        if adapter:
            prove(running, adapter)
    except BaseException:
        running.close()
        raise
    return running


def _read(answer: Any, choices: Choices, tools: Sequence[Tool]) -> Read:
    found = getattr(answer, "choices", None)
    if not found:
        return Read("", "", "empty")
    return read_reply(found[0].message, choices=choices, tools=tools, finish=found[0].finish_reason or "stop")


def _joined(call: dict[str, Any], held: dict[str, Any]) -> dict[str, Any]:
    """Both, with what goes into the body besides joined too."""
    body = call.get("extra_body", {}) | held.get("extra_body", {})
    return call | held | ({"extra_body": body} if body else {})
