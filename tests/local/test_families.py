"""What is acted with is what was trained, in every family that can be fine-tuned: the same tokens, the same log-probabilities."""

import shutil

import httpx
import kin
import pytest
import tiny
import torch

from agentevolve.local import adapter, catalog, files
from agentevolve.local.adapter import LoraSettings
from agentevolve.local.canary import probes
from agentevolve.local.families import FAMILIES, family_of
from agentevolve.local.rows import IGNORED, render
from agentevolve.local.train import load_base, load_tokenizer
from agentevolve.models.engines import llama_cpp as engine
from agentevolve.protocols import AgentevolveError

TAUGHT = [tiny.example("Where is the path?", "this way", "that way"), tiny.example("And the other?", "north")]


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request, tmp_path_factory):
    """A family: its name, the folder of a tiny model, its GGUF, and an adapter with weights large enough to be seen."""
    from safetensors.torch import load_file, save_file

    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp(request.param)
    folder = kin.folder(place / "base", request.param)
    gguf = kin.gguf_of(folder, place / "base.gguf", request.param)
    trained = place / "adapter"
    tiny.train(folder, TAUGHT, trained, LoraSettings(rank=4, epochs=1, max_length=400), seed=0, base="tiny")
    weights, random = load_file(trained / adapter.WEIGHTS), torch.Generator().manual_seed(0)
    for name, values in weights.items():
        if "lora_B" in name:
            values.normal_(std=0.1, generator=random)
    save_file(weights, trained / adapter.WEIGHTS)
    (trained / adapter.GGUF).unlink()
    adapter.export_gguf(trained, folder)
    return request.param, folder, gguf, trained


@pytest.fixture(scope="module", params=["base", "adapter"])
def server(request, family):
    """A client of the family's server, torch's model of the same, with or without the adapter; and what a request says of it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    _, folder, gguf, trained = family
    with_adapter = request.param == "adapter"
    running = engine.serve(gguf, adapter=trained / adapter.GGUF if with_adapter else None, slots=1, threads=1, context=512)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    with httpx.Client(
        base_url=running.url.removesuffix("/v1"), headers={"Authorization": f"Bearer {running.key}"}, timeout=60
    ) as client:
        yield client, (PeftModel.from_pretrained(model, trained) if with_adapter else model).eval(), running.scales
    running.close()


def test_every_linear_layer_is_trained_and_has_a_name_in_llama_cpp(family):
    import gguf
    from safetensors import safe_open

    name, _, base, trained = family
    tensors = {one.name: one.shape for one in gguf.GGUFReader(base).tensors}
    learnt = {one.name for one in gguf.GGUFReader(trained / adapter.GGUF).tensors}
    linears = {one for one, shape in tensors.items() if len(shape) == 2 and one.startswith("blk.")}
    assert learnt == {f"{one}.lora_{side}" for one in linears for side in "ab"}
    with safe_open(trained / adapter.WEIGHTS, "pt") as weights:
        assert len(weights.keys()) == len(learnt)
    assert gguf.GGUFReader(trained / adapter.GGUF).get_field("general.architecture").contents() == FAMILIES[name].gguf


@pytest.mark.parametrize("place", [0, 2])
def test_the_server_reads_the_tokens_that_training_renders(family, server, place):
    _, folder, _, _ = family
    row = render(TAUGHT[0], load_tokenizer(folder))
    answers = [at for at, label in enumerate(row.labels) if label != IGNORED and row.labels[at - 1] == IGNORED]
    messages = [*TAUGHT[0].prompt, *TAUGHT[0].completion][: 2 + place]
    asked = {"messages": [one.model_dump() for one in messages], "max_tokens": 1}
    text = server[0].post("/apply-template", json=asked).json()["prompt"]
    seen = server[0].post("/tokenize", json={"content": text, "add_special": True}).json()["tokens"]
    assert seen == row.ids[: answers[place // 2]]
    assert server[0].post("/v1/chat/completions", json=asked).json()["usage"]["prompt_tokens"] == len(seen)


def test_torch_and_llama_cpp_give_the_same_log_probabilities(family, server):
    client, model, scales = server
    row = render(TAUGHT[0], load_tokenizer(family[1]))
    # letters only: the chances are those before that choice, and half a character would come without them
    held = {"grammar": f"root ::= {' [a-z]' * 6}", "lora": scales}
    asked = {"prompt": row.ids, "n_predict": 5, "temperature": 0.0, "n_probs": 5} | held
    told = client.post("/completion", json=asked).json()["completion_probabilities"]
    assert len(told) == 5
    ids = row.ids + [one["id"] for one in told]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, len(row.ids) - 1 : -1].log_softmax(-1)
    for place, one in enumerate(told):
        for candidate in one["top_logprobs"]:
            assert logits[place, candidate["id"]].item() == pytest.approx(candidate["logprob"], abs=1e-2)


def test_the_adapter_changes_what_is_said(family):
    from peft import PeftModel

    _, folder, _, trained = family
    ids = torch.tensor([render(TAUGHT[0], load_tokenizer(folder)).ids])
    model, _ = load_base(folder)
    with torch.no_grad():
        before = model(ids).logits.log_softmax(-1)
        after = PeftModel.from_pretrained(model, trained).eval()(ids).logits.log_softmax(-1)
    assert (before - after).abs().max() > 0.5


@pytest.mark.parametrize("shards", [False, True])
def test_a_base_whose_files_are_wider_is_what_transformers_makes_of_it(family, tmp_path, shards):
    from transformers import AutoModelForCausalLM, GenerationConfig

    name, folder, _, _ = family
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path, max_shard_size="50KB" if shards else "1GB")
    kin.tokenizer(name).save_pretrained(tmp_path)
    GenerationConfig(eos_token_id=[1, 7], max_length=99).save_pretrained(tmp_path)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == shards
    model, _ = load_base(tmp_path, "bfloat16")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="bfloat16")
    assert type(model) is type(plain) and model.dtype == torch.bfloat16 and not model.training
    for parts in ("state_dict", "named_buffers"):
        made, expected = (dict(getattr(one, parts)()) for one in (model, plain))
        assert made.keys() == expected.keys() and all(torch.equal(made[name], expected[name]) for name in expected)
    assert model.name_or_path == model.config.name_or_path == str(tmp_path) == str(plain.name_or_path)
    assert model.config.to_diff_dict() == plain.config.to_diff_dict()
    assert model.generation_config == plain.generation_config and model.generation_config.eos_token_id == [1, 7]


def test_a_base_without_one_of_its_files_is_not_made_up(family, tmp_path):
    from transformers import AutoModelForCausalLM

    _, folder, _, _ = family
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path, max_shard_size="50KB")
    kept = max(tmp_path.glob("*.safetensors"))
    shutil.copy(kept, tmp_path / "consolidated.safetensors")
    assert catalog.resolve(str(tmp_path)).folder == tmp_path
    assert files.parameters(tmp_path) == files.parameters(folder)  # what transformers does not read is not counted
    kept.unlink()
    for load in (lambda: catalog.resolve(str(tmp_path)), lambda: load_base(tmp_path, "bfloat16")):
        with pytest.raises(AgentevolveError, match=rf"index.json: names files that are not beside it: {kept.name}"):
            load()


def test_another_family_is_refused_by_name():
    with pytest.raises(AgentevolveError, match=r"its architecture is 'mamba'; known: gemma3_text, llama, mistral, phi3, qwen"):
        family_of("mamba")


def test_the_canary_of_a_model_in_half_precision_is_that_of_its_weights_in_float32_and_leaves_them_as_they_are(family):
    from peft import PeftModel

    _, folder, _, trained = family
    base, tokenizer = load_base(folder, "bfloat16")
    model = PeftModel.from_pretrained(base, trained)  # the adapter is float32, as in training
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    assert any(weight.dtype == torch.bfloat16 for weight in before.values())
    found = probes(model, tokenizer)
    assert {name: weight.dtype for name, weight in model.named_parameters()} == {n: one.dtype for n, one in before.items()}
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert found == probes(model.float(), tokenizer)
