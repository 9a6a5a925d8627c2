"""Whether a model fits into memory: asked before anything is read, hashed or paid for.

What a training takes of a GPU is worked out from the model's sizes, in bytes: the frozen base; the adapter with its gradient and
Adam's two moments, in float32; what the backward pass needs of each layer (in 16 bits where the GPU trains in them), and of the
head where tokens are learnt. The factors are those that the tests count on tiny models of every family (what autograd keeps),
rounded up to the hungriest family. Beside what an H200 took at its peak, rows of a step in one sequence: 2.6 GB estimated and
2.2 taken with 135 million parameters, 29.4 and 22.6 with Qwen2 1.5B's shape (6.7 and 5.0 with its layers computed again), 70.5
and 55.1 with Qwen2 7B's (`tests/bench/train_head.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agentevolve.local.processes import on_gpu
from agentevolve.protocols import AgentevolveError

FLOAT = 4  # bytes
SHARE = 0.9  # of a GPU that a vLLM server is to take at the most
SPARE = 0.02  # of a GPU: what is left of the free memory for the driver


class Memory(NamedTuple):
    """Bytes of a device: free ones, and all of them."""

    free: int
    total: int


class Way(NamedTuple):
    """How the rows of an optimiser step go through the model: so many at a time, as one sequence; and whether each layer is
    computed again for the backward pass instead of being kept: less memory, more time (gradient checkpointing, 1604.06174).
    """

    rows: int
    again: bool


ONE_BY_ONE = Way(1, again=False)


class Sizes(NamedTuple):
    """What decides how much memory a training takes: of the base, the adapter, and the longest optimiser step's rows."""

    parameters: int
    adapter: int  # parameters
    width: int
    inner: int  # of the feed-forward layers
    layers: int
    vocabulary: int
    rows: tuple[tuple[int, int], ...]  # tokens and learnt tokens of each
    half: bool  # whether the base is held in 16 bits
    judged: bool = False  # whether the base's own chances are asked for, too (a divergence)

    @property
    def each(self) -> int:
        """Bytes of a number of the base, and of what its layers keep."""
        return 2 if self.half else FLOAT


def size(weights: Iterable[Path]) -> int:
    """The bytes of these files."""
    return sum(path.stat().st_size for path in weights)


def check_room(model: str, need: float, what: str) -> None:
    """Raise AgentevolveError, with both figures, if `need` bytes, at the least, are more memory than the machine has."""
    import psutil

    have = psutil.virtual_memory().total
    if need > have:
        raise AgentevolveError(
            f"{model}: takes at least {need / 1e9:,.1f} GB of memory {what}; this machine has {have / 1e9:,.1f} GB"
        )


def of_gpu() -> Memory | None:
    """The memory of the GPU that this process trains on, what earlier trainings left of it given back; None without one."""
    if not on_gpu():
        return None
    import torch

    torch.cuda.empty_cache()
    return Memory(*torch.cuda.mem_get_info(int(os.environ.get("LOCAL_RANK", "0"))))


def sizes(config: dict[str, Any], parameters: int, rank: int, rows: Sequence[tuple[int, int]], **more: bool) -> Sizes:
    """Those of a model, by its `config.json`, with an adapter of this rank on all its linear layers."""
    width, inner, layers = (int(config[name]) for name in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    heads = int(config["num_attention_heads"])
    dim = int(config.get("head_dim") or width // heads)
    queries, keys = heads * dim, int(config.get("num_key_value_heads") or heads) * dim
    adapted = 2 * (width + queries) + 2 * (width + keys) + 3 * (width + inner)  # rows and columns of a layer's matrices
    return Sizes(
        parameters, rank * layers * adapted, max(width, queries), inner, layers, int(config["vocab_size"]), tuple(rows), **more
    )


def activations(of: Sizes, way: Way) -> int:
    """Bytes that the backward pass of the longest sequence needs."""
    longest = sorted(of.rows, reverse=True)[: way.rows]
    tokens, learnt = sum(row[0] for row in longest), sum(row[1] for row in longest)
    layer = tokens * of.each * (15 * of.width + 5 * of.inner)
    kept = tokens * of.each * of.width * of.layers + layer if way.again else layer * of.layers
    mask = tokens * tokens * FLOAT if way.rows > 1 else 0
    return kept + mask + learnt * of.vocabulary * FLOAT * (8 if of.judged else 4)


def training(of: Sizes, way: Way) -> int:
    """Bytes that a training takes at its peak."""
    return of.parameters * of.each + of.adapter * 4 * FLOAT + activations(of, way)


def way_of(model: str, of: Sizes, have: Memory | None, rows: int, *, alone: bool = True) -> Way:
    """How `rows` rows of an optimiser step are learnt in a GPU's memory: in the quickest way that fits.

    Without a GPU one after the other: that is the quickest on a CPU. Several processes (not `alone`) have to go the same way, so
    their way hangs on no figure of theirs. Raises AgentevolveError, with both figures, when none fits.
    """
    if have is None:
        return ONE_BY_ONE
    ways = [Way(rows, again=False), Way(rows, again=True), Way(1, again=True)] if alone else [Way(rows, again=True)]
    for way in ways:
        if training(of, way) <= have.free:
            return way
    rest = "" if alone or rows == 1 else "; fewer rows for each process (batch_size) take less"
    raise AgentevolveError(
        f"{model}: fine-tuning takes about {training(of, ways[-1]) / 1e9:,.1f} GB of the GPU's memory, with a longest row of"
        f" {max(of.rows)[0]} tokens; {_free(have)} (a vLLM server beside it keeps what its --gpu-memory-utilization says){rest}"
    )


def share_for(model: str, need: float, have: Memory | None) -> float | None:
    """The share of a GPU that a vLLM server is to take (its --gpu-memory-utilization): it refuses to start if that is not free.

    None without a GPU. Raises AgentevolveError, with both figures, if the weights alone, `need` bytes, do not fit.
    """
    if have is None:
        return None
    share = min(SHARE, int(100 * (have.free / have.total - SPARE)) / 100)
    if need > share * have.total:
        raise AgentevolveError(f"{model}: its weights take {need / 1e9:,.1f} GB of the GPU's memory; {_free(have)}")
    return share


def _free(have: Memory) -> str:
    return f"{have.free / 1e9:,.1f} GB of {have.total / 1e9:,.1f} GB are free"
