"""An adapter for others' tools: a PEFT folder with a model card, merged weights as a transformers folder, a GGUF LoRA file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal, get_args

from agentevolve.local import adapter, catalog
from agentevolve.local.quiet import quiet
from agentevolve.local.train import load_base, unfinished
from agentevolve.whole import write_whole

Form = Literal["peft", "merged", "gguf"]
FORMS: tuple[str, ...] = get_args(Form)


def export(source: Path, out: Path, form: Form, *, base: catalog.LocalModel, card: str) -> None:
    """Write the adapter in the folder `source`, trained on `base`, to the new folder `out`, or for "gguf" to the file `out`.

    The model card `card` goes with a folder. Raises AgentevolveError when the folder is there or the base is another one.
    """
    adapter.check_base(source, base.identity)
    if form == "gguf":
        write_whole(out, (source / adapter.GGUF).read_bytes())
        return
    with unfinished(out) as scratch:
        if form == "peft":
            for name in (adapter.WEIGHTS, adapter.CONFIG):
                shutil.copyfile(source / name, scratch / name)
        else:
            _merge(catalog.training_folder(base), source, scratch)
        (scratch / "README.md").write_text(card, encoding="utf-8")


def _merge(folder: Path, source: Path, out: Path) -> None:
    """The base's weights, in float32, with the adapter's change added to them; and the tokenizer."""
    from peft import PeftModel

    with quiet():
        model, tokenizer = load_base(folder, "float32")
        PeftModel.from_pretrained(model, source).merge_and_unload().save_pretrained(out)
        tokenizer.save_pretrained(out)


def card(about: dict[str, Any], *, name: str, model: str, form: Form, licence: str) -> str:
    """A model card: what was trained on what, and by what, and what was measured of it."""
    head: dict[str, Any] = {"base_model": model, "tags": ["lora", "agentevolve"]}
    head |= {"library_name": "peft" if form == "peft" else "transformers"} | ({"license": licence} if licence else {})
    what = f"A LoRA adapter of `{model}`" if form == "peft" else f"`{model}` with a LoRA adapter merged into its weights"
    lines = [f"{key}: {json.dumps(value)}" for key, value in head.items()]
    told = [f"- {key}: {value}" for key, value in about.items()]
    return "\n".join(["---", *lines, "---", f"# {name}", "", f"{what}, learnt by agentevolve.", "", *told, ""])
