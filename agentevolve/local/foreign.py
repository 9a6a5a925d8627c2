"""A LoRA adapter that another tool made (PEFT's folder), as one of ours: checked, named for llama.cpp, with a canary of its own.

Of the folder only numbers are read: the safetensors, and from the config the rank and the scale. What it was trained on nobody
here knows, and its record says so.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from agentevolve.local import adapter, catalog, files
from agentevolve.local.adapter import LoraSettings
from agentevolve.local.canary import Probe, probes
from agentevolve.local.families import PREFIX, Names
from agentevolve.local.quiet import quiet
from agentevolve.local.train import load_base, unfinished
from agentevolve.protocols import AgentevolveError

HASH = re.compile(r"[0-9a-f]{64}")
PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "use_dora": (False, None),
    "use_rslora": (False, None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
}  # by key of PEFT's config what llama.cpp's LoRA can say


def bring(source: Path, out: Path, base: catalog.LocalModel) -> None:
    """Write PEFT's LoRA folder `source`, trained on `base`, to the new folder `out` as an adapter of ours.

    Raises AgentevolveError, one line that names file and field, for what is no such folder or has not this base's shapes.
    """
    settings = _settings(source, base)
    folder = catalog.training_folder(base)
    names = Names(files.read_config(folder))
    tensors = _tensors(source, settings.rank)
    if odd := next((name for name in tensors if names.of(name) is None), ""):
        raise AgentevolveError(f"{source / adapter.WEIGHTS}: {odd[:100]} is no layer of {base.name} that llama.cpp adapts")
    with unfinished(out) as scratch, quiet():
        canary = _fitted(tensors, settings, folder, scratch, base, source)
        adapter.export_gguf(scratch, folder)
        adapter.write_rows([], scratch)
        known = {"base": base.identity, "brought": True, "settings": settings, "canary": canary}
        info = adapter.untrained(scratch, **known, seed=0, examples=(), sources=(), seconds=0.0, versions={})
        (scratch / adapter.INFO).write_text(info.model_dump_json(indent=1), encoding="utf-8")


def _settings(source: Path, base: catalog.LocalModel) -> LoraSettings:
    """Rank and scale, from the folder's config."""
    path = source / adapter.CONFIG
    if not path.is_file():
        raise AgentevolveError(f"{source}: not a LoRA folder of PEFT: {adapter.CONFIG} is missing")
    config = files.read_json(path)
    for key, known in PLAIN.items():
        if config.get(key) not in known:
            raise AgentevolveError(f"{path}: {key} is {config.get(key)!r:.80}; known: {', '.join(map(repr, known))}")
    named = str(config.get("base_model_name_or_path") or "")
    if HASH.fullmatch(named) and named != base.identity:
        raise AgentevolveError(f"adapter {source} was trained on {named}, not on {base.identity}")
    try:
        return adapter.lora_settings(rank=config.get("r"), alpha=config.get("lora_alpha"))
    except AgentevolveError as error:
        raise AgentevolveError(f"{path}: {error}") from None


def _tensors(source: Path, rank: int) -> dict[str, Any]:
    """The folder's tensors in float32; each layer has both of its own."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = source / adapter.WEIGHTS
    if not path.is_file():
        raise AgentevolveError(f"{source}: {adapter.WEIGHTS} is missing; weights are read as safetensors alone")
    try:
        found = {name: values.float().contiguous() for name, values in load_file(path).items()}
    except SafetensorError as error:
        raise AgentevolveError(f"{path}: not readable: {' '.join(str(error).split())[:200]}") from None
    for name, values in found.items():
        other = name.replace(".lora_A.", ".lora_B.") if ".lora_A." in name else name.replace(".lora_B.", ".lora_A.")
        inner = values.shape[0 if ".lora_A." in name else -1] if values.ndim == 2 else -1
        if other == name or other not in found or inner != rank or not name.startswith(PREFIX):
            raise AgentevolveError(f"{path}: {name[:100]} {tuple(values.shape)} is not one of a LoRA pair of rank {rank}")
    if not found:
        raise AgentevolveError(f"{path}: holds no tensors")
    return found


def _fitted(
    tensors: dict[str, Any], settings: LoraSettings, folder: Path, scratch: Path, base: catalog.LocalModel, source: Path
) -> tuple[Probe, ...]:
    """Write PEFT's two files with these tensors to `scratch`, put them on the base, and take the canary of that."""
    from peft import PeftModel
    from safetensors.torch import save_file

    layers = sorted({name.removeprefix(PREFIX).split(".lora_")[0] for name in tensors})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": settings.rank, "lora_alpha": settings.alpha, "bias": "none"}
    told = config | {"target_modules": layers, "base_model_name_or_path": base.identity, "inference_mode": True}
    (scratch / adapter.CONFIG).write_text(json.dumps(told, indent=2), encoding="utf-8")
    save_file(tensors, scratch / adapter.WEIGHTS, metadata={"format": "pt"})
    model, tokenizer = load_base(folder)
    try:
        fitted = PeftModel.from_pretrained(model, scratch)
    except (RuntimeError, ValueError) as error:  # PEFT says in many lines which layer has which shape
        why = " ".join(str(error).split())[:200]
        raise AgentevolveError(f"{source}: its layers are not those of {base.name}: {why}") from None
    return probes(fitted, tokenizer)
