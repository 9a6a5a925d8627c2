"""agentevolve: LLM agents that get better by themselves, in their context and in their weights, with proof.

    Task → Environment → Agent → Trajectory → (refine) → Entry | Example → (update) → Policy → (evaluate) → next round

The public names below are imported when they are first used: `import agentevolve` itself loads nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "records": ("Entry", "Example", "Message", "Report", "Task", "Trajectory", "Turn", "Usage"),
    "protocols": ("AgentevolveError", "Environment", "Memory", "Model", "ModelError", "Reply", "Step"),
    "load": ("load", "load_environment", "load_task_set", "tasks_of"),
    "run.budget": ("Budget",),
    "run.folder": ("Run",),
    "memory": ("open_memory",),
    "models.lite": ("open_model",),
    "models.stand_ins": ("RandomModel", "ScriptedModel"),
    "policy": ("Policy", "Recall"),
    "act.rollout": ("rollout",),
    "refine": ("best", "demos", "reflect", "unsolved"),
    "update": ("examples", "finetune", "remember"),
    "evaluate": ("learning_curve", "paired", "report", "table", "wilson"),
    "config": ("Config", "read_config"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """The public name, from the module it lives in."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; known: {', '.join(__all__)}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return __all__
