"""A LoRA adapter on disk: the PEFT files training wrote, the same weights as GGUF for serving, and where they came from.

An adapter is a folder of five files: `adapter_model.safetensors`, `adapter_config.json`, `adapter.gguf`, `rows.jsonl` (the
examples it was trained on, one a line) and `agentevolve.json` (AdapterInfo). Weights are only ever read as safetensors: nothing
here unpickles.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentevolve.given import complaint
from agentevolve.local import files
from agentevolve.local.canary import Probe
from agentevolve.local.families import Names
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Example
from agentevolve.whole import write_whole

INFO, WEIGHTS, CONFIG, GGUF = "agentevolve.json", "adapter_model.safetensors", "adapter_config.json", "adapter.gguf"
ROWS = "rows.jsonl"


class LoraSettings(BaseModel):
    """How to train. `batch_size` rows make one optimiser step; a row is cut after `max_length` tokens.

    The learning rate rises over the first `warmup` share of the steps and falls linearly to zero over the rest. `objective`:
    sft learns the completions; dpo prefers each completion to the rejected one (2305.18290); kto raises desirable and lowers
    undesirable completions, unpaired (2402.01306). `beta` is theirs: how strongly they hold on to where they started from.
    grpo learns from good and bad attempts by their weights, which are advantages (2402.03300): a token's probability counts no
    further than `clip` away from what it was when training began. `kl` weighs the divergence of sft and grpo from the base at
    the learnt positions (regularisation, as in 2203.02155).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rank: int = Field(default=16, ge=1, le=1024)
    alpha: int = Field(default=32, ge=1, le=2048)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    learning_rate: float = Field(default=5e-4, gt=0.0, le=1.0)
    epochs: int = Field(default=2, ge=1, le=1000)
    batch_size: int = Field(default=8, ge=1, le=4096)
    max_length: int = Field(default=2048, ge=2, le=2**20)
    warmup: float = Field(default=0.1, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=0.0, ge=0.0, le=1.0)
    objective: Literal["sft", "dpo", "kto", "grpo"] = "sft"
    beta: float = Field(default=0.1, gt=0.0, le=1000.0)
    kl: float = Field(default=0.0, ge=0.0, le=1000.0)
    clip: float = Field(default=0.2, gt=0.0, le=1.0)


def lora_settings(**values: Any) -> LoraSettings:
    """The settings with these values. Raises AgentevolveError, one line, for one that is unknown or out of range."""
    try:
        return LoraSettings(**values)
    except ValidationError as error:
        raise AgentevolveError(complaint(error, LoraSettings)) from None


class AdapterInfo(BaseModel):
    """Where an adapter came from: the base it belongs to, how and on what it was trained, and its files' sha256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    brought: bool = False  # made by another tool: on what is not known here
    start: str | None = None  # identity of the adapter it continues, None for one trained from the base
    parts: tuple[tuple[str, float], ...] = ()  # identity and weight of each adapter that it was merged from
    settings: LoraSettings
    seed: int
    examples: tuple[str, ...]
    sources: tuple[str, ...]  # ids of the trajectories the examples came from
    cut: int = 0  # how many of the examples were learnt in part only
    dropped: dict[str, int] = {}  # how many others were left out, by reason
    loss_first: float
    loss_last: float
    tokens: int
    labelled: int
    steps: int
    seconds: float
    versions: dict[str, str]
    files: dict[str, str]
    canary: tuple[Probe, ...] = ()  # by which a server's weights are known

    @property
    def identity(self) -> str:
        """The sha256 of the trained weights."""
        return self.files[WEIGHTS]


def untrained(path: Path, **known: Any) -> AdapterInfo:
    """The record of the adapter in `path` that no training made: losses, tokens and steps are zero."""
    return AdapterInfo(files=digests(path), loss_first=0.0, loss_last=0.0, tokens=0, labelled=0, steps=0, **known)


def read_adapter(path: Path) -> AdapterInfo:
    """The adapter in the folder `path`, all its files checked against the hashes recorded when it was written.

    Raises AgentevolveError, one line, when `path` is no adapter of ours or a file of it is missing or damaged.
    """
    if not (path / INFO).is_file():
        raise AgentevolveError(f"{path}: not an adapter: a folder with {INFO} is expected")
    try:
        info = AdapterInfo.model_validate_json((path / INFO).read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "not UTF-8"
        raise AgentevolveError(f"{path / INFO}: not an adapter's record: {what}") from None
    for name in (WEIGHTS, CONFIG, GGUF, ROWS):
        if not (path / name).is_file():
            raise AgentevolveError(f"{path}: broken adapter: {name} is missing")
        rewriting = name == ROWS and name not in info.files  # `rewrite_rows` was killed: the rows are whole, old or new
        if not rewriting and info.files.get(name) != sha256(path / name):
            raise AgentevolveError(f"{path}: broken adapter: {name} is not the file that training wrote")
    return info


def adapters_of(run: Path) -> Iterator[tuple[Path, AdapterInfo]]:
    """The adapters in a run's folder, by name, each with its record. Raises AgentevolveError for a broken one."""
    for path in sorted(one for one in (run / "adapters").glob("[!.]*") if one.is_dir()):
        yield path, read_adapter(path)


def check_base(path: Path, base: str) -> AdapterInfo:
    """`read_adapter(path)`, and that it was trained on the base with identity `base`; else an AgentevolveError naming both."""
    info = read_adapter(path)
    if info.base != base:
        raise AgentevolveError(f"adapter {path} was trained on {info.base}, not on {base}")
    return info


def check_start(start: Path, base: str, settings: LoraSettings) -> str:
    """The identity of the adapter in `start`, if training on `base` can go on from it; else an AgentevolveError."""
    info = check_base(start, base)
    for name in ("rank", "alpha"):
        if getattr(info.settings, name) != getattr(settings, name):
            raise AgentevolveError(
                f"{start}: {name} is {getattr(info.settings, name)}; it cannot go on with {getattr(settings, name)}"
            )
    return info.identity


def sha256(path: Path) -> str:
    """The hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(path: Path) -> dict[str, str]:
    """The sha256 of each file of the adapter in `path`, for AdapterInfo.files."""
    return {name: sha256(path / name) for name in (WEIGHTS, CONFIG, GGUF, ROWS)}


def read_rows(path: Path) -> list[Example]:
    """The examples that the adapter in `path` was trained on."""
    lines = (path / ROWS).read_text(encoding="utf-8").split("\n")[:-1]
    return [Example.model_validate_json(line) for line in lines]


def write_rows(examples: Sequence[Example], path: Path) -> None:
    """Keep what an adapter is trained on in its folder `path`."""
    lines = [f"{example.model_dump_json()}\n" for example in examples]
    (path / ROWS).write_text("".join(lines), encoding="utf-8", errors="backslashreplace")


def rewrite_rows(path: Path, examples: Sequence[Example]) -> None:
    """Keep only these of the rows that the adapter in `path` was trained on; its record says so, its weights stay."""
    info = read_adapter(path)
    others = {name: hash for name, hash in info.files.items() if name != ROWS}
    write_whole(path / INFO, info.model_copy(update={"files": others}).model_dump_json(indent=1))
    write_whole(path / ROWS, "".join(f"{example.model_dump_json()}\n" for example in examples))
    files = others | {ROWS: sha256(path / ROWS)}
    write_whole(path / INFO, info.model_copy(update={"files": files}).model_dump_json(indent=1))


def load_weights(model: Any, start: Path) -> None:
    """Set the LoRA weights of the PEFT model `model` to those of the adapter in `start`, which has the same rank."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(model, load_file(start / WEIGHTS))


def save_weights(model: Any, out: Path, base: str) -> None:
    """Write PEFT's two files of `model` into `out` and nothing else.

    The config names the base by its identity, not by a path of this machine.
    """
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(out, save_embedding_layers=False)
    for path in out.iterdir():
        if path.name not in (WEIGHTS, CONFIG):  # PEFT's model card, the trainer's folders
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def export_gguf(adapter: Path, folder: Path) -> Path:
    """Write the PEFT adapter in `adapter`, trained on the transformers model in `folder`, as `adapter.gguf` beside it.

    Returns the file. Raises AgentevolveError for a base of an unknown family or a tensor that has no name in llama.cpp.
    """
    import gguf

    names = Names(files.read_config(folder))
    lora = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(adapter / GGUF, names.family.gguf)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(lora["lora_alpha"]))
    for name, values in _gguf_tensors(adapter / WEIGHTS, names):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return adapter / GGUF


def _gguf_tensors(file: Path, names: Names) -> Iterator[tuple[str, Any]]:
    """llama.cpp's name and the float32 values of each tensor: `lora_a` is (rank, in), `lora_b` is (out, rank)."""
    import numpy as np
    from safetensors.numpy import load_file

    for tensor, values in sorted(load_file(file).items()):
        found = names.of(tensor)
        if found is None:
            raise AgentevolveError(f"{file}: tensor {tensor} has no name in llama.cpp")
        name, side = found
        if side == "lora_b" and (heads := names.heads(name)):
            values = _interleave(values, heads)
        yield f"{name}.weight.{side}", np.ascontiguousarray(values, dtype=np.float32)


def _interleave(values: Any, heads: int) -> Any:
    """Rows (out, rank) in llama.cpp's order: it rotates neighbouring pairs, transformers the two halves of a head."""
    rows, rank = values.shape
    return values.reshape(heads, 2, rows // heads // 2, rank).swapaxes(1, 2).reshape(rows, rank)
