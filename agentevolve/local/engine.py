"""Serving a GGUF inside this process: llama.cpp's OpenAI-compatible server on loopback, behind a random key."""

from __future__ import annotations

import os
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
        """Stop serving and free the model. Closing twice is allowed."""
        with self._lock:
            self._server = None


def serve(gguf: Path, *, adapter: Path | None = None, slots: int = 4, threads: int | None = None, context: int = CONTEXT) -> Engine:
    """Serve `gguf` (with the GGUF LoRA file `adapter` applied) on a free port of 127.0.0.1.

    `context` is the number of tokens each of the `slots` can hold; `threads` defaults to the number of cores.
    Raises AgentevolveError when the extra is not installed or llama.cpp cannot load a file.
    """
    try:
        import xllamacpp
    except ImportError:
        raise AgentevolveError('a local model needs the extra "local": pip install "agentevolve[local]"') from None
    key = secrets.token_urlsafe(32)
    params = _params(xllamacpp, gguf, adapter, slots, threads or os.cpu_count() or 1, context)
    params.api_keys = [key]
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise AgentevolveError(f"{gguf}: llama.cpp cannot serve it: {error}") from None
    return Engine(server, key, slots)


def _params(xllamacpp: Any, gguf: Path, adapter: Path | None, slots: int, threads: int, context: int) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    if adapter is not None:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    params.n_parallel = slots
    params.n_ctx = slots * context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.port = 0
    params.cors_origins = "null"
    params.cors_credentials = False
    params.ui = params.endpoint_slots = params.endpoint_metrics = params.endpoint_props = False
    params.verbosity = 0
    params.cache_ram_mib = 0
    return params


def grammar(choices: Sequence[str]) -> str:
    """A GBNF grammar that admits exactly the strings in `choices`."""
    return "root ::= " + " | ".join('"' + "".join(map(_escape, choice)) + '"' for choice in choices)


def _escape(char: str) -> str:
    if char in '"\\' or not char.isprintable():
        return f"\\U{ord(char):08X}"
    return char
