"""How fast a local model is on this machine, and what memory it takes to serve it: measured once, kept in the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from agentevolve.local import catalog
from agentevolve.models.engines import llama_cpp as engine
from agentevolve.records import Record
from agentevolve.whole import write_whole

PROMPT, ANSWER = 512, 64  # tokens
PATIENCE = 600.0  # seconds: a large model on few cores


class Speed(Record):
    """Tokens a second that are read and written, one conversation at a time; bytes that the process grew by, with four slots."""

    read: float
    written: float
    memory: int
    cores: int


def known(name: str) -> Speed | None:
    """What was measured of the catalog's model here; None if nothing was."""
    try:
        return Speed.model_validate_json(_kept(name).read_bytes())
    except (OSError, ValidationError):
        return None


def measure(name: str) -> Speed:
    """Serve the catalog's model, fetching it first if need be, and time one prompt and one answer."""
    import psutil

    gguf = catalog.serving_gguf(catalog.resolve(name))
    process = psutil.Process()
    before = process.memory_info().rss
    running = engine.serve(gguf)
    try:
        asked = {"prompt": list(range(1_000, 1_000 + PROMPT)), "n_predict": ANSWER, "ignore_eos": True, "cache_prompt": False}
        running.completion(asked, PATIENCE)  # warms up
        told = running.completion(asked, PATIENCE)["timings"]
        memory = process.memory_info().rss - before
    finally:
        running.close()
    found = Speed(
        read=round(told["prompt_per_second"], 1),
        written=round(told["predicted_per_second"], 1),
        memory=memory,
        cores=os.cpu_count() or 1,
    )
    write_whole(_kept(name), found.model_dump_json())
    return found


def _kept(name: str) -> Path:
    return catalog.cache() / f"{catalog.CATALOG[name].sha256[:12]}.speed.json"
