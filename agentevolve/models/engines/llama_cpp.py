"""Serving a GGUF inside this process: llama.cpp's OpenAI-compatible server on loopback, behind a random key.

Its defaults were measured with SmolLM2-135M on CPU cores: micro-batches of 64 to 1024 tokens, flash attention forced and a
unified cache all stay within the noise, a quantized cache and flash attention off are slower; so they are left alone. A caller
that keeps its growing conversation in one slot (`id_slot` in the request) has only its new tokens prefilled.
"""

from __future__ import annotations

import functools
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from agentevolve.protocols import AgentevolveError

CONTEXT = 4096  # tokens a slot
LIKELIEST = 100  # tokens of which the chances are asked


class Server:
    """A running server with a base and the adapters that it was started with, each under the name that was given for it.

    Its OpenAI routes are at `url`, every request needs `key`, `slots` requests run side by side.
    """

    def __init__(self, running: Any, key: str, slots: int, adapters: Collection[str] = ()) -> None:
        self._running: Any = running
        self._lock = threading.Lock()
        self.url = f"{running.listening_address}/v1"
        self.key, self.slots, self.adapters = key, slots, tuple(adapters)

    def scales(self, adapter: str | None, scale: float = 1.0) -> list[dict[str, float]]:
        """What a request says so that this adapter alone changes the base, times `scale`: what is not named keeps its scale."""
        return [{"id": place, "scale": scale * (name == adapter)} for place, name in enumerate(self.adapters)]

    def close(self) -> None:
        """Wait for the requests in flight, then stop serving and free the model. Closing twice is allowed.

        Nothing may be sent meanwhile: llama.cpp's server never stops while a request waits for its answer.
        """
        with self._lock:
            while self._running is not None and _busy(self._running):
                time.sleep(0.02)
            self._running = None


class Engine:
    """A policy's way to a server: its base, or one of its adapters. `release` is called when the engine is closed."""

    def __init__(self, server: Server, adapter: str | None, release: Callable[[], None]) -> None:
        self._server, self._adapter, self._release = server, adapter, release
        self.url, self.key, self.slots = server.url, server.key, server.slots
        self.scales = server.scales(adapter)  # as every request says them

    @property
    def route(self) -> dict[str, Any]:
        """By its OpenAI routes."""
        return {"model": "hosted_vllm/local", "api_base": self.url, "api_key": self.key}  # half of what openai/ costs

    def held(self, choices: Sequence[str], form: dict[str, Any] | None, slot: int) -> tuple[str, dict[str, Any]]:
        """By a grammar, or by a JSON schema. A slot keeps its conversation's tokens; every request says the adapters' scales."""
        body = {"id_slot": slot % self.slots, "lora": self.scales}
        if choices:
            return "grammar", {"extra_body": body | {"grammar": grammar(choices)}}
        shape = {"response_format": form} if form else {}
        return next(iter(shape), "free text"), {"extra_body": body} | shape

    def call(self) -> AbstractContextManager[None]:
        """Nothing stands in the way of a request."""
        return nullcontext()

    def count(self, text: str) -> int:
        """The tokens of `text`, as the model reads it within a conversation."""
        return _counted(self.url, self.key, text)

    def chances(self, prompt: Sequence[int], tokens: Sequence[int], scale: float) -> dict[int, float]:
        """The log-probabilities of the likeliest tokens, whichever they are; `scale` may be any share."""
        scales = self._server.scales(self._adapter, scale)
        # a letter: the chances are those before that choice, and for half a character none are told
        asked = {"prompt": list(prompt), "n_predict": 1, "n_probs": LIKELIEST, "grammar": "root ::= [a-z]", "lora": scales}
        [first] = self.completion(asked)["completion_probabilities"][:1]
        return {one["id"]: one["logprob"] for one in first["top_logprobs"]}

    def completion(self, asked: dict[str, Any], patience: float = 120.0) -> dict[str, Any]:
        """The answer, within so many seconds, of llama.cpp's own route, which takes tokens and tells chances and timings."""
        return _answer(self.url, self.key, "completion", {"lora": self.scales} | asked, patience)

    def close(self) -> None:
        """Give the server back: one of its own stops after the requests in flight. Closing twice is allowed."""
        release, self._release = self._release, _nothing
        release()


def serve(
    gguf: Path, *, adapter: Path | None = None, slots: int = 4, threads: int | None = None, context: int = CONTEXT
) -> Engine:
    """Serve `gguf`, with the GGUF LoRA file `adapter` on it, by a server of its own; as `start` otherwise."""
    named = str(adapter) if adapter else None
    server = start(gguf, {named: adapter} if named and adapter else {}, slots=slots, threads=threads, context=context)
    return Engine(server, named, server.close)


def start(
    gguf: Path, adapters: Mapping[str, Path], *, slots: int = 4, threads: int | None = None, context: int = CONTEXT
) -> Server:
    """A server of `gguf` on a free port of 127.0.0.1, with these GGUF LoRA files, of which none answers unless a request says so.

    `context` is the number of tokens each of the `slots` can hold; `threads` defaults to the physical cores.
    Raises AgentevolveError when the extra is not installed or llama.cpp cannot load a file.
    """
    try:
        import xllamacpp
    except ImportError:
        raise AgentevolveError('a local model needs the extra "local": pip install "agentevolve[local]"') from None
    for path in (gguf, *adapters.values()):
        if not path.is_file():
            raise AgentevolveError(f"{path}: no such file")
    key = secrets.token_urlsafe(32)
    params = _params(xllamacpp, gguf, slots, threads, context, key)
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(path), 0.0) for path in adapters.values()]
    try:
        running = xllamacpp.Server(params)
    except RuntimeError:
        named = " or ".join(map(str, adapters.values()))
        what = f" with adapter {named}: no LoRA for this architecture and size, or a damaged file" if named else ""
        raise AgentevolveError(f"llama.cpp cannot serve {gguf}{what}") from None
    _busy(running)  # its loop answers, so it runs: closed before that, the server would wait for it for ever
    return Server(running, key, slots, adapters)


def _nothing() -> None:
    """What is left to do at a second closing."""


@functools.lru_cache(maxsize=10_000)  # the same demos are weighed for each task
def _counted(url: str, key: str, text: str) -> int:
    return len(_answer(url, key, "tokenize", {"content": text, "add_special": False}, 5.0)["tokens"])


def _answer(url: str, key: str, route: str, asked: dict[str, Any], patience: float) -> dict[str, Any]:
    """What one of llama.cpp's own routes, beside those of OpenAI, answers within `patience` seconds."""
    import httpx

    address, headers = f"{url.removesuffix('/v1')}/{route}", {"Authorization": f"Bearer {key}"}
    answer = httpx.post(address, json=asked, headers=headers, trust_env=False, timeout=patience)
    return dict(answer.raise_for_status().json())


def _params(xllamacpp: Any, gguf: Path, slots: int, threads: int | None, context: int, key: str) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.n_parallel = slots
    params.n_ctx = slots * context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads or -1  # -1: llama.cpp counts the cores
    params.port = 0  # a free one
    params.api_keys = [key]
    params.cors_origins, params.cors_credentials = "null", False  # by default every web page may call it
    params.ui = params.endpoint_slots = params.endpoint_props = False
    params.endpoint_metrics = True  # `close` asks it what is in flight; over HTTP it needs the key
    params.cache_ram_mib = 0  # conversations stay in their slots; by default 8 GB of old ones are kept
    params.verbosity = 0
    return params


def _busy(running: Any) -> bool:
    """Whether a request is being answered or waits for a slot. Asked through the queue that the requests go through."""
    lines = running.handle_metrics().splitlines()
    counts = dict(line.split() for line in lines if not line.startswith("#"))
    return any(float(counts[f"llamacpp:requests_{state}"]) for state in ("processing", "deferred"))


def grammar(choices: Sequence[str]) -> str:
    """A GBNF grammar that admits exactly the strings in `choices`."""
    return "root ::= " + " | ".join('"' + "".join(map(_escape, choice)) + '"' for choice in choices)


def _escape(char: str) -> str:
    if char in '"\\' or not char.isprintable():
        return f"\\U{ord(char):08X}"
    return char
