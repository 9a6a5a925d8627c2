"""Several processes that train one adapter together, as `accelerate launch` or `torchrun` starts them.

Each is given its number and theirs in the environment, reads the same rows and learns its share of every optimiser step; the
first one alone writes.
"""

from __future__ import annotations

import os

from agentevolve.protocols import AgentevolveError


def count() -> int:
    """How many processes train together: 1 if this one was started alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first() -> bool:
    """Whether this is the process that writes and tells."""
    return int(os.environ.get("RANK", "0")) == 0


def on_gpu() -> bool:
    """Whether this process trains on a GPU: there is one, and `accelerate launch --cpu` has not asked for none."""
    import torch

    return torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "").lower() not in ("true", "1")


def check_alone(command: str) -> None:
    """Raise AgentevolveError if this is one of several processes: all of them would do the whole of `command`."""
    if count() > 1:
        said = f"{command} is for one process: {count()} of them would each do the whole of it"
        raise AgentevolveError(f"{said}; distill shares its work")


def share_of(batch_size: int) -> int:
    """How many rows of each optimiser step are this process's. Raises AgentevolveError if they cannot be shared out evenly."""
    if batch_size % count():
        raise AgentevolveError(f"batch_size: {batch_size} rows cannot be shared out evenly among {count()} processes")
    return batch_size // count()
