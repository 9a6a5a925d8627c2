"""What is in a model's files: which of a folder's GGUF files is the language model, its parts, its config and control tokens."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from agentevolve.protocols import AgentevolveError

SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")  # llama.cpp loads the rest of a model from the name of its first part


def parts(gguf: Path) -> list[Path]:
    """The files of a model, in order: of one named "…-00001-of-00003.gguf" three. Raises AgentevolveError when one is missing."""
    named = SHARD.fullmatch(gguf.name)
    if not named:
        return [gguf]
    files = [gguf.with_name(f"{named[1]}-{number:05}-of-{named[3]}.gguf") for number in range(1, int(named[3]) + 1)]
    missing = [file.name for file in files if not file.is_file()]
    if missing or gguf not in files:
        raise AgentevolveError(f"{gguf}: one of several parts, of which there is no {', '.join(missing[:3]) or gguf.name}")
    return files


def language_model(folder: Path) -> Path | None:
    """The GGUF in `folder` that is a language model, None without one. Raises AgentevolveError when there are several."""
    named = [file for file in sorted(folder.glob("*.gguf")) if not projects(file)]
    found = list(dict.fromkeys(parts(file)[0] for file in named))
    if len(found) > 1:  # reading what is in them takes seconds
        found = [file for file in found if _speaks(file)]
    if len(found) > 1:
        raise AgentevolveError(
            f"{folder}: several models: {', '.join(file.name for file in found)}; name one, such as local/{found[0]}"
        )
    return found[0] if found else None


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a transformers folder. Raises AgentevolveError, one line, when it is missing or no mapping."""
    if not (folder / "config.json").is_file():
        raise AgentevolveError(f"{folder}: not a transformers folder: config.json is missing")
    return read_json(folder / "config.json")


def weights(folder: Path) -> list[Path]:
    """The files with a transformers folder's weights, as transformers chooses them: others hold the same ones once more.

    Raises AgentevolveError, one line, when there are none, or one of several is missing.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise AgentevolveError(
            f"{folder}: a transformers folder needs its weights as {single.name}, or in parts that {index.name} names"
        )
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise AgentevolveError(f"{index}: weight_map is no mapping of weights to files")
    found = sorted({str(name) for name in named.values()})
    missing = [name for name in found if Path(name).name != name or not (folder / name).is_file()]
    if missing:
        raise AgentevolveError(f"{index}: names files that are not beside it: {', '.join(missing[:3])}")
    return [folder / name for name in found]


def parameters(folder: Path) -> int:
    """How many weights a transformers folder has, by the heads of its files. Raises AgentevolveError for one without a head."""
    from safetensors import SafetensorError, safe_open

    total = 0
    for file in weights(folder):
        try:
            with safe_open(file, "np") as read:
                total += sum(math.prod(read.get_slice(name).get_shape()) for name in read.keys())  # noqa: SIM118
        except SafetensorError as error:
            raise AgentevolveError(f"{file}: not readable: {' '.join(str(error).split())[:200]}") from None
    return total


def added_tokens(folder: Path) -> tuple[str, ...]:
    """The control tokens of the tokenizer in a transformers folder."""
    added: list[Any] = []
    if (folder / "tokenizer.json").is_file():
        added += read_json(folder / "tokenizer.json").get("added_tokens") or []
    if (folder / "tokenizer_config.json").is_file():
        added += (read_json(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}).values()
    return tuple(dict.fromkeys(str(token["content"]) for token in added if token.get("special")))


def control_tokens(read: Any) -> list[str]:
    """The control tokens of a GGUF's tokenizer: what llama.cpp parses in text, beside tokens that the user defined."""
    from gguf import TokenType

    tokens, kinds = read.get_field("tokenizer.ggml.tokens"), read.get_field("tokenizer.ggml.token_type")
    if tokens is None or kinds is None:
        return []
    wanted = (TokenType.CONTROL, TokenType.UNKNOWN)
    return [str(tokens.contents(place)) for place, kind in enumerate(kinds.contents()) if kind in wanted]


def reader(path: Path) -> Any:
    """The gguf package's reader of the file. Raises AgentevolveError, one line, when it cannot be read."""
    import gguf
    import numpy as np

    class Reader(gguf.GGUFReader):  # type: ignore[misc]
        """The package's own, over a plain array: it takes hundreds of thousands of slices, and those of a memmap cost twice."""

        @property
        def data(self) -> Any:
            return self._plain

        @data.setter
        def data(self, mapped: Any) -> None:
            self._plain = np.asarray(mapped)

    try:
        return Reader(path)
    except Exception as error:  # a file from outside: its reader raises whatever its bytes lead to
        raise AgentevolveError(f"{path}: not a readable GGUF file: {' '.join(str(error).split())[:200]}") from None


def field(read: Any, name: str) -> str:
    """A text among the metadata of a GGUF; "" when it is not there."""
    found = read.get_field(name)
    return "" if found is None else str(found.contents())


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file. Raises AgentevolveError, one line, when it holds none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise AgentevolveError(f"{path}: not JSON: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(value, dict):
        raise AgentevolveError(f"{path}: a {type(value).__name__}, not a mapping")
    return value


def projects(file: Path) -> bool:
    """Whether the file is named as what turns images into a model's input, which lies beside many a model."""
    return "mmproj" in file.name.lower()


def _speaks(file: Path) -> bool:
    """Whether the file is a language model by its own account: no projector of images, adapter or vocabulary."""
    read = reader(file)
    return field(read, "general.type") in ("", "model") and field(read, "general.architecture") != "clip"
