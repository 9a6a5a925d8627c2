"""The real server with the real model on loopback."""

import threading
from pathlib import Path

import httpx
import pytest

from agentevolve.models.engines.llama_cpp import Engine, serve
from agentevolve.protocols import AgentevolveError


def call(engine: Engine, path: str, body: dict | None = None, key: str | None = None, origin: str = "") -> httpx.Response:
    headers = {"Authorization": f"Bearer {engine.key if key is None else key}", "Origin": origin}
    url = engine.url.removesuffix("/v1") + path
    return httpx.request("POST" if body else "GET", url, json=body, headers=headers, timeout=60)


def chat(engine: Engine, said: list[str], **extra) -> dict:
    roles = ["user", "assistant"] * len(said)
    messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]
    body = {"messages": messages, "max_tokens": 4, "temperature": 0, **extra}
    return call(engine, "/v1/chat/completions", body).json()


def lora(path: Path, inner: int = 576, arch: str = "llama", value: float = 0.0) -> Path:
    """A GGUF LoRA file of rank 2 on the first block's output projection, which is 576 × 576 in SmolLM2-135M."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, arch)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 2.0)
    writer.add_tensor("blk.0.attn_output.weight.lora_a", np.ones((2, inner), np.float32))
    writer.add_tensor("blk.0.attn_output.weight.lora_b", np.full((inner, 2), value, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def engine(smollm2):
    engine = serve(smollm2, slots=2, threads=1, context=512)
    yield engine
    engine.close()


def test_it_listens_on_loopback_and_asks_for_its_key(engine):
    assert engine.url.startswith("http://127.0.0.1:")
    assert call(engine, "/v1/chat/completions", {"messages": []}, key="wrong").status_code == 401
    assert call(engine, "/metrics", key="wrong").status_code == 401
    assert len(engine.key) >= 32


def test_web_pages_may_not_call_it_and_there_is_no_page_of_its_own(engine):
    answer = call(engine, "/health", origin="http://evil.example")
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "null"
    assert call(engine, "/").status_code == 404
    assert call(engine, "/slots").status_code == 501


def test_a_conversation_in_its_slot_prefills_only_what_is_new(engine):
    story = "In the kitchen there is a table, a chair, an oven and a door to the north. " * 4
    first = [chat(engine, [f"{name}. {story}"], id_slot=slot) for slot, name in enumerate(("Ann", "Bob"))]
    for slot, name in enumerate(("Ann", "Bob")):
        reply = first[slot]["choices"][0]["message"]["content"]
        again = chat(engine, [f"{name}. {story}", reply, "And the door?"], id_slot=slot)
        assert again["timings"]["cache_n"] >= first[slot]["usage"]["prompt_tokens"] - 1
        assert again["timings"]["prompt_n"] < 30


def test_closing_right_after_the_start_and_twice_returns(smollm2):
    for _ in range(3):
        engine = serve(smollm2, slots=1, threads=1, context=256)
        engine.close()
        engine.close()
        with pytest.raises(httpx.ConnectError):
            call(engine, "/health")


def test_closing_waits_for_a_request_in_flight(smollm2):
    engine = serve(smollm2, slots=1, threads=1, context=512)
    answers = []
    body = {"prompt": "Once upon a time", "max_tokens": 48, "ignore_eos": True}
    client = threading.Thread(target=lambda: answers.append(call(engine, "/v1/completions", body)))
    client.start()
    while "requests_processing 1" not in call(engine, "/metrics").text and client.is_alive():
        pass
    engine.close()
    client.join()
    assert answers[0].json()["usage"]["completion_tokens"] == 48


def test_an_adapter_is_applied(engine, smollm2, tmp_path):
    plain = chat(engine, ["What is the capital of France?"])["choices"][0]["message"]["content"]
    texts = []
    for value in (0.0, 5.0):
        adapted = serve(smollm2, adapter=lora(tmp_path / f"{value}.gguf", value=value), slots=1, threads=1, context=256)
        texts.append(chat(adapted, ["What is the capital of France?"], lora=adapted.scales)["choices"][0]["message"]["content"])
        adapted.close()
    assert texts[0] == plain
    assert texts[1] != plain


def test_an_adapter_that_does_not_fit_is_refused_by_name(smollm2, tmp_path):
    garbage = tmp_path / "garbage.gguf"
    garbage.write_bytes(b"GGUF" + bytes(range(200)))
    wrong = [lora(tmp_path / "wide.gguf", inner=64), lora(tmp_path / "other.gguf", arch="qwen2"), garbage, tmp_path / "gone.gguf"]
    for path in wrong:
        with pytest.raises(AgentevolveError, match=path.name):
            serve(smollm2, adapter=path, slots=1, threads=1, context=256)


def test_a_damaged_model_is_refused_by_name(tmp_path):
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(AgentevolveError, match=r"damaged\.gguf"):
        serve(damaged, slots=1, threads=1, context=256)
