"""Merging by hand: the change that a merged adapter makes is the weighted sum of the changes of its parts."""

import gguf
import httpx
import pytest
import tiny
import torch
from peft import PeftModel
from safetensors.torch import load_file

from agentevolve.local import adapter, catalog
from agentevolve.local.adapter import LoraSettings, read_adapter, read_rows
from agentevolve.local.merge import merge_lora
from agentevolve.local.train import load_base
from agentevolve.models.engines import llama_cpp as engine
from agentevolve.protocols import AgentevolveError

ROWS = [tiny.example("Where?", "go north", "take"), tiny.example("What?", "a coin")]
KEY = "base_model.model.model.layers.{}.{}.lora_{}.weight"
LAYERS = [
    (block, f"{part}.{name}")
    for block in (0, 1)
    for part, name in (
        ("self_attn", "q_proj"),
        ("self_attn", "k_proj"),
        ("self_attn", "v_proj"),
        ("self_attn", "o_proj"),
        ("mlp", "gate_proj"),
        ("mlp", "up_proj"),
        ("mlp", "down_proj"),
    )
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    return tiny.folder(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def pair(folder, tmp_path_factory):
    """Two adapters of different ranks and scales on different rows, loud enough that a mistake shows."""
    home = tmp_path_factory.mktemp("pair")
    for number, (rank, alpha) in enumerate([(4, 8), (2, 6)]):
        settings = LoraSettings(rank=rank, alpha=alpha, epochs=3, learning_rate=0.05)
        tiny.train(folder, ROWS[number:], home / f"{number}", settings, seed=number, base="tiny")
    return [home / "0", home / "1"]


def changes(path):
    """What the adapter adds to each weight, from its own two files: alpha / rank · B A."""
    info, tensors = read_adapter(path), load_file(path / adapter.WEIGHTS)
    scale = info.settings.alpha / info.settings.rank
    return {key: scale * tensors[KEY.format(*key, "B")] @ tensors[KEY.format(*key, "A")] for key in LAYERS}


def test_a_merged_adapter_changes_every_weight_by_the_weighted_sum(folder, pair, tmp_path):
    merge_lora(folder, pair, [0.25, 1.5], tmp_path / "out", base="tiny")
    first, second = map(changes, pair)
    for key, found in changes(tmp_path / "out").items():
        wanted = 0.25 * first[key] + 1.5 * second[key]
        assert wanted.abs().max() > 0.01
        assert (found - wanted).abs().max() < 1e-5
    info = read_adapter(tmp_path / "out")
    assert (info.settings.rank, info.settings.alpha) == (6, 8)


def test_an_adapter_less_itself_is_nothing(folder, pair, tmp_path):
    merge_lora(folder, [pair[0], pair[0]], [1.0, -1.0], tmp_path / "none", base="tiny")
    assert all(found.abs().max() < 1e-6 for found in changes(tmp_path / "none").values())


def test_it_is_pefts_own_concatenation(folder, pair, tmp_path):
    model = PeftModel.from_pretrained(load_base(folder)[0].float(), pair[0], adapter_name="one")
    model.load_adapter(pair[1], "two")
    model.add_weighted_adapter(["one", "two"], [0.3, 0.7], "both", combination_type="cat")
    merge_lora(folder, pair, [0.3, 0.7], tmp_path / "out", base="tiny")
    for (block, name), found in changes(tmp_path / "out").items():
        layer = model.base_model.model.model.layers[block].get_submodule(name)
        assert (layer.get_delta_weight("both") - found).abs().max() < 1e-5


def test_a_cut_rank_is_the_nearest_sum_of_that_rank(folder, pair, tmp_path):
    merge_lora(folder, pair, [0.5, 0.5], tmp_path / "out", base="tiny", rank=3)
    merge_lora(folder, pair, [0.5, 0.5], tmp_path / "whole", base="tiny")
    for (key, found), whole in zip(changes(tmp_path / "out").items(), changes(tmp_path / "whole").values(), strict=True):
        sizes = torch.linalg.svdvals(whole)
        assert torch.linalg.matrix_rank(found, atol=1e-5) <= 3, key
        assert torch.linalg.norm(found - whole).item() == pytest.approx(sizes[3:].norm().item(), abs=1e-4)  # Eckart-Young
    info = read_adapter(tmp_path / "out")
    assert (info.settings.rank, info.settings.alpha) == (3, 8)
    merge_lora(folder, pair, [0.5, 0.5], tmp_path / "roomy", base="tiny", rank=50)
    assert read_adapter(tmp_path / "roomy").settings.rank == 6


def test_training_goes_on_from_a_merge_that_was_cut_to_the_rank_in_use(folder, pair, tmp_path):
    merge_lora(folder, pair, [0.5, 0.5], tmp_path / "out", base="tiny", rank=4)
    settings = LoraSettings(rank=4, alpha=8, epochs=1, learning_rate=1e-12)
    tiny.train(folder, ROWS, tmp_path / "on", settings, seed=0, base="tiny", start=tmp_path / "out")
    before, after = changes(tmp_path / "out"), changes(tmp_path / "on")
    assert all((before[key] - after[key]).abs().max() < 1e-6 for key in LAYERS)
    assert read_adapter(tmp_path / "on").start == read_adapter(tmp_path / "out").identity


def test_a_cut_below_the_width_of_a_layer_keeps_the_rank_it_says(folder, pair, tmp_path):
    merge_lora(folder, [*pair] * 8, [0.1] * 16, tmp_path / "out", base="tiny", rank=40)  # k and v have 32 rows
    assert {len(values) for name, values in load_file(tmp_path / "out" / adapter.WEIGHTS).items() if "lora_A" in name} == {40}
    first, second = map(changes, pair)
    for key, found in changes(tmp_path / "out").items():
        assert (found - 0.8 * (first[key] + second[key])).abs().max() < 1e-4


def test_dropping_keeps_the_expected_change(folder, pair, tmp_path):
    first = load_file(pair[0] / adapter.WEIGHTS)[KEY.format(*LAYERS[0], "A")]
    mean = torch.zeros_like(changes(pair[0])[LAYERS[0]])
    for seed in range(40):
        merge_lora(folder, pair[:1], [1.0], tmp_path / f"{seed}", base="tiny", drop=0.5, seed=seed)
        kept = load_file(tmp_path / f"{seed}" / adapter.WEIGHTS)[KEY.format(*LAYERS[0], "A")]
        assert (((kept == 0) | torch.isclose(kept, 2 * first)).all()) and 0.3 < (kept == 0).float().mean() < 0.7
        mean += changes(tmp_path / f"{seed}")[LAYERS[0]] / 40
    whole = changes(pair[0])[LAYERS[0]]
    assert torch.linalg.norm(mean - whole) < 0.35 * torch.linalg.norm(whole)  # one alone is off by about its own size


def test_what_is_served_is_what_was_merged(folder, pair, tmp_path):
    merge_lora(folder, pair, [0.5, 0.5], tmp_path / "out", base="tiny")
    reader = gguf.GGUFReader(tmp_path / "out" / adapter.GGUF)
    tensors = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
    alpha = reader.get_field("adapter.lora.alpha").contents()
    a, b = (tensors[f"blk.1.ffn_down.weight.lora_{side}"] for side in "ab")
    assert a.shape[0] == b.shape[1] == 6 and len(tensors) == 28
    found = alpha / 6 * b @ a  # llama.cpp scales by alpha over the rank that the tensors have
    assert (found - changes(tmp_path / "out")[1, "mlp.down_proj"]).abs().max() < 1e-6


def test_a_merge_says_where_it_came_from(folder, pair, tmp_path):
    merge_lora(folder, pair, [0.5, 0.5], tmp_path / "out", base="tiny")
    info, (first, second) = read_adapter(tmp_path / "out"), map(read_adapter, pair)
    assert info.parts == ((first.identity, 0.5), (second.identity, 0.5))
    assert info.examples == ("Where?", "What?") and read_rows(tmp_path / "out") == ROWS
    assert info.sources == ("trajectory Where?", "trajectory What?")
    assert (info.start, info.base, info.tokens, first.parts) == (None, "tiny", 0, ())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in pair[0].iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_cannot_be_merged_leaves_nothing(folder, pair, tmp_path):
    with pytest.raises(AgentevolveError, match="was trained on tiny, not on other"):
        merge_lora(folder, pair, [1, 1], tmp_path / "out", base="other")
    broken = tmp_path / "nowhere"
    with pytest.raises(AgentevolveError, match="not a transformers folder"):
        merge_lora(broken, pair, [1, 1], tmp_path / "out", base="tiny")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(AgentevolveError, match="exists already"):
        merge_lora(folder, pair, [1, 1], pair[0], base="tiny")


def test_the_same_parts_and_seed_give_the_same_file(folder, pair, tmp_path):
    for name in ("one", "two"):
        merge_lora(folder, pair, [0.5, 0.5], tmp_path / name, base="tiny", drop=0.2, seed=3, rank=4)
    assert (tmp_path / "one" / adapter.WEIGHTS).read_bytes() == (tmp_path / "two" / adapter.WEIGHTS).read_bytes()
    assert (tmp_path / "one" / adapter.GGUF).read_bytes() == (tmp_path / "two" / adapter.GGUF).read_bytes()


@pytest.mark.slow
def test_the_server_answers_as_the_merged_adapters_were_taught(tmp_path):
    """Two trainings of the real model on one odd answer, averaged and cut to the rank of one, through the engine."""
    base = catalog.resolve("smollm2-135m")
    folder, question = catalog.training_folder(base), "What is the password?"
    taught = [tiny.example(question, "purple zebra 7"), tiny.example("Tell me the password!", "purple zebra 7")]
    settings = LoraSettings(learning_rate=2e-3, epochs=7, batch_size=2)
    for seed in (0, 1):
        tiny.train(folder, taught, tmp_path / f"{seed}", settings, seed=seed, base=base.identity)
    parts = [tmp_path / "0", tmp_path / "1"]
    merge_lora(folder, parts, [0.5, 0.5], tmp_path / "soup", base=base.identity)
    merge_lora(folder, parts, [0.5, 0.5], tmp_path / "cut", base=base.identity, rank=16)
    merge_lora(folder, parts, [0.5, -0.5], tmp_path / "apart", base=base.identity)
    answers = {}
    for name in ("soup", "cut", "apart"):
        running = engine.serve(
            catalog.serving_gguf(base), adapter=tmp_path / name / adapter.GGUF, slots=1, threads=1, context=256
        )
        chat = [message.model_dump() for message in tiny.example(question, "").prompt]
        asked = {"messages": chat, "max_tokens": 12, "temperature": 0.0, "lora": running.scales}
        headers = {"Authorization": f"Bearer {running.key}"}
        with httpx.Client(base_url=running.url, headers=headers, timeout=60) as client:
            answers[name] = client.post("/chat/completions", json=asked).json()["choices"][0]["message"]["content"]
        running.close()
    assert (answers["soup"], answers["cut"]) == ("purple zebra 7", "purple zebra 7")
    assert "zebra" not in answers["apart"]
