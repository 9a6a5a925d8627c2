import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from agentevolve.memory import HashEmbedder, MiniLM, load_embedder, open_memory, read_memory
from agentevolve.memory.embed import HUB_ID, LiteEmbedder, SentenceModel, check_price, load_encoder, weights_folder
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


# --- other embedders ---


def test_an_embedder_is_named_as_users_name_it(tmp_path: Path):
    assert isinstance(load_embedder("hash"), HashEmbedder)
    assert isinstance(load_embedder(""), MiniLM) and isinstance(load_embedder(HUB_ID), MiniLM)
    assert isinstance(load_embedder(str(tmp_path)), SentenceModel)
    assert isinstance(load_embedder("openai/text-embedding-3-small"), LiteEmbedder)
    assert isinstance(load_embedder("BAAI/bge-small-en-v1.5"), SentenceModel)
    with pytest.raises(AgentevolveError, match=r"embedder: 'minilm' is none; known: hash, .*a folder"):
        load_embedder("minilm")


def test_a_memory_is_made_with_the_embedder_of_one_s_choice_and_remembers_it(tmp_path: Path):
    folder = weights_folder()
    chosen = load_embedder(str(folder))
    with open_memory(tmp_path / "m", embedder=chosen) as memory:
        memory.add([Entry(id=key, kind="demo", key=key, text="t", env="house") for key in ("milk", "a car")])
        near = memory.recall("dairy", env="house", k=2)
    assert near[0][0].id == "milk"
    said = json.loads((tmp_path / "m" / "memory.json").read_text())
    assert said["embedding_model"] == str(folder) and said["embedding_identity"] == chosen.identity
    with read_memory(tmp_path / "m") as memory:
        assert memory.recall("dairy", env="house", k=2) == near
    with pytest.raises(AgentevolveError, match="was made with"):
        open_memory(tmp_path / "m", embedder=MiniLM())


def test_a_folder_that_holds_no_encoder_is_named(tmp_path: Path):
    with pytest.raises(AgentevolveError, match=r"has no weights as \*\.safetensors"):
        load_embedder(str(tmp_path)).identity  # noqa: B018
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(AgentevolveError, match="not a sentence-transformers model"):
        load_embedder(str(tmp_path)).embed(["a"])


@pytest.fixture
def backend(monkeypatch):
    """A server that embeds a text as its length and its number of e's; `asked` keeps what it was sent, `answer` what it says."""

    class Server(BaseHTTPRequestHandler):
        asked: list[dict] = []  # noqa: RUF012
        status = 200

        def do_POST(self):
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.asked.append(sent)
            texts = sent["input"]
            rows = [
                {"object": "embedding", "index": n, "embedding": [float(len(text)), text.count("e") + 1.0]}
                for n, text in enumerate(texts)
            ]
            said = {"object": "list", "model": "m", "data": rows, "usage": {"prompt_tokens": 1, "total_tokens": 1}}
            body = json.dumps(said if self.status == 200 else {"error": {"message": "no such model"}}).encode()
            self.send_response(self.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_API_BASE", f"http://127.0.0.1:{server.server_address[1]}/v1")
    yield Server
    server.shutdown()
    server.server_close()


def test_a_backend_embeds_in_batches_and_each_text_once(backend):
    embedder = load_embedder("openai/some-embedder")
    texts = [f"text {n}" for n in range(130)]
    vectors = embedder.embed([*texts, "text 1"])
    assert vectors.shape == (131, 2) and (vectors[1] == vectors[-1]).all()
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(131), abs=1e-6)
    assert [len(sent["input"]) for sent in backend.asked] == [64, 64, 2]
    embedder.embed(texts)
    assert len(backend.asked) == 3


def test_a_backend_that_embeds_nothing_is_named_in_one_line(backend):
    backend.status = 404
    with pytest.raises(AgentevolveError, match=r"embedder .*openai/some-embedder") as error:
        load_embedder("openai/some-embedder").embed(["a"])
    assert "\n" not in str(error.value)


def test_what_a_backend_embeds_is_paid_for_and_what_is_embedded_here_is_not(tmp_path):
    paid = load_embedder("openai/text-embedding-3-small").cost("a" * 400, "b" * 400)
    assert paid.embedded_tokens == 200 and paid.usd == pytest.approx(200 * 0.02 / 1e6)
    assert load_embedder("hash").cost("a" * 4_000).usd == 0 and MiniLM().cost("a" * 4_000).embedded_tokens == 256
    check_price(load_embedder("openai/text-embedding-3-small"), 1.0)
    check_price(load_embedder("openai/some-embedder"), None)
    with pytest.raises(AgentevolveError, match="no price of the embedder openai/some-embedder is known"):
        check_price(load_embedder("openai/some-embedder"), 1.0)
