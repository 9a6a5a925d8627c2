"""How like two adapters of one base are, by what they change: each the sum over layers of alpha / rank · B A."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from agentevolve.local.adapter import WEIGHTS, check_base, read_adapter


class Likeness(BaseModel):
    """The sizes (Frobenius norms) of both changes, of what is between them, and the cosine of the angle between them."""

    model_config = ConfigDict(frozen=True)

    size: float
    other_size: float
    apart: float
    cosine: float


def likeness(one: Path, other: Path) -> Likeness:
    """Of the adapters in these folders. Raises AgentevolveError if they belong to different bases."""
    info = read_adapter(one)
    check_base(other, info.base)
    first, second = _factors(one), _factors(other)
    mine, theirs, shared = _inner(first, first), _inner(second, second), _inner(first, second)
    return Likeness(
        size=math.sqrt(mine),
        other_size=math.sqrt(theirs),
        apart=math.sqrt(max(0.0, mine + theirs - 2 * shared)),
        cosine=shared / math.sqrt(mine * theirs) if mine and theirs else 0.0,
    )


def _factors(path: Path) -> dict[str, tuple[Any, Any]]:
    """By layer B, scaled, and A."""
    from safetensors.numpy import load_file

    settings, found = read_adapter(path).settings, load_file(path / WEIGHTS)
    scale = settings.alpha / settings.rank
    sides = {name: name.replace(".lora_A.", ".lora_B.") for name in found if ".lora_A." in name}
    return {name: (scale * found[b].astype("float64"), found[name].astype("float64")) for name, b in sides.items()}


def _inner(one: dict[str, tuple[Any, Any]], other: dict[str, tuple[Any, Any]]) -> float:
    """The sum over layers of trace((B A)ᵀ (B' A')), by the small products BᵀB' and A A'ᵀ."""
    return math.fsum(float(((one[k][0].T @ other[k][0]) * (one[k][1] @ other[k][1].T)).sum()) for k in one.keys() & other.keys())
