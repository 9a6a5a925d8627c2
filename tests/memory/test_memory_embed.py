from pathlib import Path

import numpy as np
import pytest

from agentevolve.memory import HashEmbedder, MiniLM, open_memory
from agentevolve.memory.embed import load_encoder
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry

HOSTILE = ["", " ", "\x00\x1b", "\ud800", "😀", "word " * 100_000, "x" * 100_000]


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    pytest.importorskip("sentence_transformers")
    return MiniLM()


def test_hashed_vectors_are_unit_and_depend_on_the_words_alone():
    vectors = HashEmbedder().embed([*HOSTILE, "Open the door!", "door the open"])
    assert vectors.shape == (len(HOSTILE) + 2, 64) and vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(vectors)), abs=1e-6)
    assert (vectors[-1] == vectors[-2]).all()


def test_minilm_finds_what_means_the_same(tmp_path: Path, minilm: MiniLM):
    texts = ["Put the milk into the fridge.", "The stock market fell sharply today.", "Drive the car to the garage."]
    with open_memory(tmp_path / "m", embedder=minilm) as memory:
        memory.add([Entry(id=text, kind="demo", key=text, text="t", env="house") for text in texts])
        hits = memory.recall("store cold dairy products", env="house", k=3)
    assert hits[0][0].id == texts[0]
    assert hits[0][1] > hits[1][1] + 0.1


def test_minilm_vectors_are_unit_and_the_same_in_any_batch(minilm: MiniLM):
    vectors = minilm.embed([*HOSTILE, "open the door", "open the door"])
    assert vectors.shape == (len(HOSTILE) + 2, 384) and vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(vectors)), abs=1e-5)
    assert (vectors[-1] == vectors[-2]).all()
    assert MiniLM().embed(["open the door"])[0] == pytest.approx(vectors[-1], abs=1e-5)
    assert minilm.embed([]).shape == (0, 384)


def test_weights_that_are_not_the_published_ones_are_refused(tmp_path: Path):
    with pytest.raises(AgentevolveError, match=r"model\.safetensors: not the published weights.*sha256 missing"):
        load_encoder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(AgentevolveError, match=r"sha256 [0-9a-f]{64}, expected 53aa51"):
        load_encoder(tmp_path)
