"""An adapter for others' tools: a PEFT folder with a model card, merged weights as a transformers folder, a GGUF LoRA file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from agentevolve.local import adapter, catalog
from agentevolve.local.quiet import quiet
from agentevolve.local.train import load_tokenizer, unfinished

Form = Literal["peft", "merged", "gguf"]


def export(source: Path, out: Path, form: Form, *, base: catalog.LocalModel, card: str) -> None:
    """Write the adapter in the folder `source`, trained on `base`, to the new folder `out` (a new file for "gguf").

    The model card `card` goes with a folder. Raises AgentevolveError when `out` exists or the adapter belongs to another base.
    """
    adapter.check_base(source, base.identity)
    with unfinished(out) as scratch:
        if form == "gguf":
            shutil.copyfile(source / adapter.GGUF, scratch.with_suffix(".file"))
            scratch.rmdir()
            scratch.with_suffix(".file").rename(scratch)
            return
        if form == "peft":
            for name in (adapter.WEIGHTS, adapter.CONFIG):
                shutil.copyfile(source / name, scratch / name)
        else:
            _merge(catalog.training_folder(base), source, scratch)
        (scratch / "README.md").write_text(card, encoding="utf-8")


def _merge(folder: Path, source: Path, out: Path) -> None:
    """The base's weights, in float32, with the adapter's change added to them; and the tokenizer."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype="float32", use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
        PeftModel.from_pretrained(model, source).merge_and_unload().save_pretrained(out)
        load_tokenizer(folder).save_pretrained(out)


def card(about: dict[str, Any], *, name: str, model: str, licence: str) -> str:
    """A model card: whose adapter it is, what it was trained on and by what, and what was measured of it."""
    head = {
        "base_model": model,
        "library_name": "peft",
        "tags": ["lora", "agentevolve"],
        **({"license": licence} if licence else {}),
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in head.items()]
    told = [f"- {key}: {value}" for key, value in about.items()]
    return "\n".join(
        ["---", *lines, "---", f"# {name}", "", f"A LoRA adapter of `{model}`, learnt by agentevolve.", "", *told, ""]
    )
