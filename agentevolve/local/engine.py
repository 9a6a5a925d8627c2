"""Serving a GGUF inside this process: llama.cpp's OpenAI-compatible server on loopback, behind a random key.

Its defaults were measured with SmolLM2-135M on CPU cores: micro-batches of 64 to 1024 tokens, flash attention forced and a
unified cache all stay within the noise, a quantized cache and flash attention off are slower; so they are left alone. A caller
that keeps its growing conversation in one slot (`id_slot` in the request) has only its new tokens prefilled.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentevolve.protocols import AgentevolveError

CONTEXT = 4096  # tokens a slot


class Engine:
    """A running server: its OpenAI routes are at `url`, every request needs `key`, `slots` requests run side by side."""

    def __init__(self, server: Any, key: str, slots: int) -> None:
        self._server: Any = server
        self._lock = threading.Lock()
        self.url = f"{server.listening_address}/v1"
        self.key = key
        self.slots = slots

    def close(self) -> None:
        """Stop serving and free the model; requests in flight fail. Closing twice is allowed."""
        with self._lock:
            self._server = None


def serve(
    gguf: Path, *, adapter: Path | None = None, slots: int = 4, threads: int | None = None, context: int = CONTEXT
) -> Engine:
    """Serve `gguf` (with the GGUF LoRA file `adapter` applied) on a free port of 127.0.0.1.

    `context` is the number of tokens each of the `slots` can hold; `threads` defaults to the physical cores.
    Raises AgentevolveError when the extra is not installed or llama.cpp cannot load a file.
    """
    try:
        import xllamacpp
    except ImportError:
        raise AgentevolveError('a local model needs the extra "local": pip install "agentevolve[local]"') from None
    for path in filter(None, (gguf, adapter)):
        if not path.is_file():
            raise AgentevolveError(f"{path}: no such file")
    key = secrets.token_urlsafe(32)
    try:
        server = xllamacpp.Server(_params(xllamacpp, gguf, adapter, slots, threads, context, key))
    except RuntimeError:
        what = f" with adapter {adapter}: no LoRA for this architecture and size, or a damaged file" if adapter else ""
        raise AgentevolveError(f"llama.cpp cannot serve {gguf}{what}") from None
    # A server that is closed before its loop has begun never returns from closing: one answer proves that it runs.
    server.handle_completions({"prompt": "a", "max_tokens": 1})
    return Engine(server, key, slots)


def _params(xllamacpp: Any, gguf: Path, adapter: Path | None, slots: int, threads: int | None, context: int, key: str) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    if adapter is not None:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    params.n_parallel = slots
    params.n_ctx = slots * context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads or -1  # -1: llama.cpp counts the cores
    params.warmup = False  # the first answer does it
    params.port = 0  # a free one
    params.api_keys = [key]
    params.cors_origins, params.cors_credentials = "null", False  # by default every web page may call it
    params.ui = params.endpoint_slots = params.endpoint_metrics = params.endpoint_props = False
    params.cache_ram_mib = 0  # conversations stay in their slots; by default 8 GB of old ones are kept
    params.verbosity = 0
    return params


def grammar(choices: Sequence[str]) -> str:
    """A GBNF grammar that admits exactly the strings in `choices`."""
    return "root ::= " + " | ".join('"' + "".join(map(_escape, choice)) + '"' for choice in choices)


def _escape(char: str) -> str:
    if char in '"\\' or not char.isprintable():
        return f"\\U{ord(char):08X}"
    return char
