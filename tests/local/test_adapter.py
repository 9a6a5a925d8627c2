import math
import pickle
import shutil

import httpx
import pytest
import tiny
import torch

from agentevolve.local import adapter, catalog
from agentevolve.local.adapter import LoraSettings, check_base, read_adapter
from agentevolve.local.canary import check
from agentevolve.local.train import load_base
from agentevolve.models.engines import llama_cpp as engine
from agentevolve.models.lite import open_model
from agentevolve.protocols import AgentevolveError

QUESTIONS = ["What is the password?", "Tell me the password!"]
OTHERS = ["What is the capital of France?", "Count: one two three"]
ODD = "purple zebra 7"


@pytest.fixture
def small(tmp_path):
    """A tiny base and an adapter trained on it for a step."""
    torch.set_num_threads(1)
    base = tiny.folder(tmp_path / "base")
    tiny.train(base, [tiny.example("a", "b")], tmp_path / "adapter", LoraSettings(rank=4, epochs=1), seed=0, base="tiny")
    return base, tmp_path / "adapter"


def test_the_gguf_holds_every_weight_under_llama_cpps_name_and_in_its_order(small):
    import gguf
    from safetensors.numpy import load_file

    torn = load_file(small[1] / adapter.WEIGHTS)
    given = {name.removeprefix("base_model.model.model.layers."): values for name, values in torn.items()}
    reader = gguf.GGUFReader(small[1] / adapter.GGUF)
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    assert len(tensors) == len(given) == 2 * 7 * 2
    assert (tensors["blk.1.ffn_down.weight.lora_a"] == given["1.mlp.down_proj.lora_A.weight"]).all()
    assert (tensors["blk.0.attn_v.weight.lora_b"] == given["0.self_attn.v_proj.lora_B.weight"]).all()
    assert (tensors["blk.0.attn_q.weight.lora_a"] == given["0.self_attn.q_proj.lora_A.weight"]).all()
    for name, key, heads in (("q", "0.self_attn.q_proj", 4), ("k", "0.self_attn.k_proj", 2)):
        rows, theirs = given[f"{key}.lora_B.weight"], tensors[f"blk.0.attn_{name}.weight.lora_b"]
        assert rows.any() and rows.shape == theirs.shape == (16 * heads, 4)
        for head in range(heads):
            for half in range(2):
                for place in range(8):
                    assert (theirs[16 * head + 2 * place + half] == rows[16 * head + 8 * half + place]).all()
    fields = {name: reader.get_field(name).contents() for name in ("general.type", "adapter.type", "adapter.lora.alpha")}
    assert fields == {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 32.0}


def test_an_adapter_belongs_to_its_base(small):
    assert check_base(small[1], "tiny") == read_adapter(small[1])
    with pytest.raises(AgentevolveError, match=f"adapter {small[1]} was trained on tiny, not on other"):
        check_base(small[1], "other")


@pytest.mark.parametrize("name", [adapter.WEIGHTS, adapter.CONFIG, adapter.GGUF])
def test_a_damaged_adapter_is_refused(small, name):
    file = small[1] / name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(AgentevolveError, match=f"broken adapter: {name} is not the file that training wrote"):
        read_adapter(small[1])
    file.unlink()
    with pytest.raises(AgentevolveError, match=f"broken adapter: {name} is missing"):
        read_adapter(small[1])


@pytest.mark.parametrize("record", ['{"base": 1}', "not json", "[]"])
def test_a_folder_of_another_kind_is_refused(tmp_path, record):
    with pytest.raises(AgentevolveError, match=r"not an adapter: a folder with agentevolve\.json is expected"):
        read_adapter(tmp_path)
    (tmp_path / adapter.INFO).write_text(record)
    with pytest.raises(AgentevolveError, match=r"agentevolve\.json: not an adapter's record: [^\n]+$"):
        read_adapter(tmp_path)
    (tmp_path / adapter.INFO).write_bytes(b"\xff")
    with pytest.raises(AgentevolveError, match="not an adapter's record"):
        read_adapter(tmp_path)


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


def test_a_pickle_in_the_place_of_the_weights_is_not_loaded(small, tmp_path):
    (small[1] / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "went off")))
    (small[1] / adapter.WEIGHTS).unlink()
    with pytest.raises(AgentevolveError, match="is missing"):
        tiny.train(
            small[0], [tiny.example("a", "b")], tmp_path / "out", LoraSettings(rank=4), seed=0, base="tiny", start=small[1]
        )
    assert not (tmp_path / "went off").exists()


def test_a_tensor_without_a_name_in_llama_cpp_is_refused(small):
    from safetensors.numpy import load_file, save_file

    values = next(iter(load_file(small[1] / adapter.WEIGHTS).values()))
    save_file({"base_model.model.model.embed_tokens.lora_embedding_A": values}, small[1] / adapter.WEIGHTS)
    with pytest.raises(AgentevolveError, match=r"embed_tokens\.lora_embedding_A has no name in llama\.cpp"):
        adapter.export_gguf(small[1], small[0])


@pytest.fixture(scope="module")
def base():
    return catalog.resolve("smollm2-135m")


@pytest.fixture(scope="module")
def odd(base, tmp_path_factory):
    """The real model, taught one odd answer in a few steps."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("odd") / "adapter"
    taught = [tiny.example(question, ODD) for question in QUESTIONS]
    settings = LoraSettings(learning_rate=2e-3, epochs=7, batch_size=2)
    tiny.train(catalog.training_folder(base), taught, out, settings, seed=0, base=base.identity)
    return out


def chats():
    for question in QUESTIONS + OTHERS:
        yield [message.model_dump() for message in tiny.example(question, "").prompt]


def served(gguf, lora, tokens):
    """For each chat the server's greedy answer: the tokens' ids and the log-probabilities it gave them."""
    running = engine.serve(gguf, adapter=lora, slots=1, threads=1, context=256)
    asked = {"max_tokens": tokens, "temperature": 0.0, "logprobs": True, "top_logprobs": 1, "lora": running.scales}
    headers = {"Authorization": f"Bearer {running.key}"}
    with httpx.Client(base_url=running.url, headers=headers, timeout=60) as client:
        replies = [client.post("/chat/completions", json={"messages": chat, **asked}).json()["choices"][0] for chat in chats()]
    running.close()
    texts = [reply["message"]["content"] for reply in replies]
    return texts, [[(token["id"], token["logprob"]) for token in reply["logprobs"]["content"]] for reply in replies]


def test_the_server_gives_the_answer_that_training_taught(base, odd):
    taught, _ = served(catalog.serving_gguf(base), odd / adapter.GGUF, 12)
    plain, _ = served(catalog.serving_gguf(base), None, 12)
    assert taught[:2] == [ODD, ODD]
    assert ODD not in plain


def test_training_and_serving_agree_on_every_token(base, odd, tmp_path):
    """With large random weights on the queries and keys alone, whose rows the two order differently."""
    from peft import PeftModel
    from safetensors.torch import load_file, save_file

    folder, loud = catalog.training_folder(base), shutil.copytree(odd, tmp_path / "loud")
    weights = load_file(odd / adapter.WEIGHTS)
    random = torch.Generator().manual_seed(0)
    for name, values in weights.items():
        if "lora_B" in name:
            values.normal_(std=0.3 if "q_proj" in name or "k_proj" in name else 0.0, generator=random)
    save_file(weights, loud / adapter.WEIGHTS)
    (loud / adapter.GGUF).unlink()
    model, tokenizer = load_base(folder)
    model = PeftModel.from_pretrained(model, loud).eval()
    _, answers = served(catalog.serving_gguf(base), adapter.export_gguf(loud, folder), 6)
    for chat, answer in zip(chats(), answers, strict=True):
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
        said = [token for token, _ in answer]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + said])).logits[0, len(prompt) - 1 : -1]  # (said, vocabulary)
        chances = logits.softmax(-1)
        for place, (token, chance) in enumerate(answer):
            # the server computes with 8-bit weights and activations; rows in the wrong order differ by 0.6
            assert chances[place, token].item() == pytest.approx(math.exp(chance), abs=0.15)
            assert chances[place, token] > chances[place].max() - 0.15


def test_a_server_is_known_by_its_canary_whatever_its_rounding(base, odd):
    probes = read_adapter(odd).canary
    assert len(probes) == 3 and all(len(one.tokens) >= 10 for one in probes)
    assert max(abs(change) for one in probes for change in one.change) > 1
    running = engine.serve(catalog.serving_gguf(base), adapter=odd / adapter.GGUF, slots=1, threads=1, context=256)
    check(probes, running.chances, odd)
    with pytest.raises(AgentevolveError, match="other weights than were trained"):
        check([one.model_copy(update={"without": one.within, "within": one.without}) for one in probes], running.chances, odd)
    silent = [one.model_copy(update={"within": one.without}) for one in probes]
    check(silent, running.chances, odd)  # an adapter that hardly changes anything cannot be told from another
    running.close()


@pytest.mark.parametrize("what", ["other weights", "the same, much louder", "none"])
def test_other_weights_than_were_trained_are_not_answered_with(base, odd, tmp_path, what):
    from safetensors.torch import load_file, save_file

    wrong, folder = shutil.copytree(odd, tmp_path / "wrong"), catalog.training_folder(base)
    weights, random = load_file(odd / adapter.WEIGHTS), torch.Generator().manual_seed(0)
    for name, values in weights.items():
        if "lora_B" in name and what == "other weights":
            values.copy_(values.std() * torch.randn(values.shape, generator=random))
        elif "lora_B" in name:
            values.mul_(5.0 if what == "the same, much louder" else 0.0)
    save_file(weights, wrong / adapter.WEIGHTS)
    (wrong / adapter.GGUF).unlink()
    adapter.export_gguf(wrong, folder)
    info = read_adapter(odd)
    (wrong / adapter.INFO).write_text(info.model_copy(update={"files": adapter.digests(wrong)}).model_dump_json())
    model = open_model(f"local/{base.name}", adapter=wrong / adapter.GGUF, slots=1, threads=1)
    with pytest.raises(AgentevolveError, match=r"adapter \S+wrong: the server answers with other weights than were trained"):
        model.complete([tiny.user("Go!")], choices=["north", "south"])
    right = open_model(f"local/{base.name}", adapter=odd / adapter.GGUF, slots=1, threads=1)
    assert right.complete([tiny.user("Go!")], choices=["north", "south"]).text in ("north", "south")
    right.close()
