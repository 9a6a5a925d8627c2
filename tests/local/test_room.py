"""What a training takes of a GPU's memory, and that the ways in which it takes less come to the same weights: without a GPU."""

import json
import shutil

import kin
import pytest
import tiny
import torch
from safetensors.torch import load_file

from agentevolve.local import files
from agentevolve.local.adapter import WEIGHTS, LoraSettings
from agentevolve.local.families import FAMILIES
from agentevolve.local.objectives import labelled_logits, token_losses
from agentevolve.local.room import ONE_BY_ONE, Memory, Sizes, Way, activations, share_for, sizes, training, way_of
from agentevolve.local.rows import IGNORED, render
from agentevolve.local.sft import build_trainer
from agentevolve.local.train import load_base, rows_of
from agentevolve.protocols import AgentevolveError

EXAMPLES = [
    tiny.example("Where is the path?", "this way", "that way"),
    tiny.example("And the other?", "north", weight=0.5),
    tiny.example("Who?", "me", "you", "they", weight=2.0),
]
SETTINGS = LoraSettings(rank=4, alpha=8, epochs=2, batch_size=2, learning_rate=0.01)
GB = 10**9
# as a model of 7 thousand million weights has it: rows of 2,000 tokens, 200 of them learnt
LARGE = Sizes(7 * GB, 40 * 10**6, 4096, 11008, 32, 32_000, ((2_000, 200),) * 100, half=True)


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request, tmp_path_factory):
    torch.set_num_threads(1)
    return kin.folder(tmp_path_factory.mktemp(request.param) / "base", request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    return tiny.folder(tmp_path_factory.mktemp("base") / "tiny")


def built(folder, out, settings=SETTINGS, way=ONE_BY_ONE):
    """A trainer whose adapter does something, and its rows as a collator is given them."""
    model, tokenizer = load_base(folder, "float32")
    rows = [render(example, tokenizer) for example in EXAMPLES]
    trainer = build_trainer(model, tokenizer, rows, out, settings, seed=0, way=way)
    torch.manual_seed(3)
    for name, weights in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.05)
    return trainer, [row._asdict() for row in rows]


def gradients(trainer, batches) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of the batches, summed, and its gradient."""
    trainer.model.zero_grad()
    losses = [trainer.compute_loss(trainer.model, tiny.fed(trainer.model, batch), num_items_in_batch=10) for batch in batches]
    torch.stack(losses).sum().backward()
    return sum(map(float, losses)), {
        name: weights.grad.clone() for name, weights in trainer.model.named_parameters() if weights.grad is not None
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], within: float) -> bool:
    """Whether each tensor differs from its like by no more than this share of its length."""
    assert one.keys() == other.keys() and one
    return all((one[name] - other[name]).norm() <= within * one[name].norm() for name in one)


@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_rows_in_one_sequence_have_the_loss_and_the_gradient_of_the_rows_apart(family, tmp_path, kl):
    trainer, rows = built(family, tmp_path, SETTINGS.model_copy(update={"kl": kl}))
    apart, alone = gradients(trainer, [[row] for row in rows])
    joined, together = gradients(trainer, [rows])
    assert joined == pytest.approx(apart, rel=1e-5) and same(alone, together, 1e-4)
    batch = tiny.fed(trainer.model, rows)
    del batch["position_ids"]  # what keeps them apart: without it they look at each other, and the test would see it
    assert trainer.compute_loss(trainer.model, batch, num_items_in_batch=10).item() != pytest.approx(apart, rel=1e-4)


def test_layers_that_are_computed_again_have_the_same_gradient(family, tmp_path):
    found, calls = [], []
    for again in (False, True):
        trainer, rows = built(family, tmp_path / str(again), way=Way(1, again))
        if again:  # as `train` does it
            trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
        trainer.model.train()
        layer, seen = trainer.model.get_base_model().model.layers[0], []
        layer.mlp.register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))
        found.append(gradients(trainer, [[row] for row in rows]))
        calls.append(len(seen))
    assert calls == [len(EXAMPLES), 2 * len(EXAMPLES)]
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6) and same(found[0][1], found[1][1], 1e-5)


@pytest.mark.parametrize(
    "changes", [{}, {"kl": 0.1}, {"dropout": 0.2}, {"objective": "dpo"}, {"objective": "kto"}, {"objective": "grpo", "kl": 0.1}]
)
def test_a_training_with_little_memory_comes_to_the_same_weights(folder, tmp_path, changes):
    """Through the whole of it: the figures of the GPU's memory are given, and decide the way."""
    settings = SETTINGS.model_copy(update=changes)
    rejected = tiny.example("", "nobody").completion
    examples = [one.model_copy(update={"rejected": rejected}) for one in EXAMPLES]
    made = {}
    for name, memory in (("none", None), ("much", Memory(GB, GB)), ("little", Memory(*[little(folder, examples, settings)] * 2))):
        more = {"seed": 1, "base": "tiny", "memory": lambda memory=memory: memory}
        tiny.train(folder, examples, tmp_path / name, settings, **more)
        made[name] = load_file(tmp_path / name / WEIGHTS)
    assert same(made["none"], made["little"], 1e-4)
    # in 16 bits a sequence of several rows is rounded otherwise, and what is dropped falls otherwise on it
    assert same(whole(made["none"]), whole(made["much"]), 5e-2) == ("dropout" not in changes)


def whole(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"all": torch.cat([weights[name].flatten() for name in sorted(weights)])}


def little(folder, examples, settings) -> int:
    """The bytes that are enough for one row at a time whose layers are computed again, and for no other way."""
    of = sized(folder, examples, settings)
    need = training(of, Way(1, again=True))
    assert need < training(of, Way(1, again=False)) and need < training(of, Way(2, again=True))
    return need


def sized(folder, examples, settings) -> Sizes:
    rows = rows_of(folder, examples, settings).rows
    lengths = [
        (len(row.ids) + len(row.other_ids), sum(label != IGNORED for label in (*row.labels, *row.other_labels))) for row in rows
    ]
    config = json.loads((folder / "config.json").read_text())
    flags = {"half": load_base(folder)[0].dtype == torch.bfloat16, "judged": settings.kl > 0}
    return sizes(config, files.parameters(folder), settings.rank, lengths, **flags)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("number", [1, 3])
def test_the_estimate_is_above_what_the_backward_pass_keeps_and_not_far_above(family, tmp_path, again, number):
    trainer, rows = built(family, tmp_path, way=Way(1, again))
    model = trainer.model.train()
    if again:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    config, tokens = model.config.to_dict(), [(len(row["ids"]), sum(label != IGNORED for label in row["labels"])) for row in rows]
    of = sizes(config, files.parameters(family), SETTINGS.rank, tokens, half=False)
    if number == 1:
        rows = [max(rows, key=lambda row: len(row["ids"]))]
    kept: dict[int, torch.Tensor] = {}
    own = {one.untyped_storage().data_ptr() for one in (*model.parameters(), *model.buffers())}
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.setdefault(id(one), one), lambda one: one):
        token_losses(*labelled_logits(model, tiny.fed(model, rows))).sum()
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in kept.values()}
    held = sum(size for place, size in storages.items() if place not in own)
    estimate = activations(of, Way(number, again))
    assert held <= estimate
    if not again:  # else one layer is held besides, during the backward pass
        assert estimate <= 2.2 * held


def test_the_adapters_weights_and_the_bases_are_counted(family, tmp_path):
    trainer, _ = built(family, tmp_path)
    trained = sum(one.numel() for one in trainer.model.parameters() if one.requires_grad)
    base = sum(one.numel() for name, one in trainer.model.named_parameters() if not one.requires_grad and "lm_head" not in name)
    of = sizes(trainer.model.config.to_dict(), files.parameters(family), SETTINGS.rank, [(1, 1)], half=False)
    assert trained <= of.adapter <= 1.3 * trained
    assert base <= of.parameters <= base + of.vocabulary * of.width
    assert training(of, ONE_BY_ONE) == 4 * of.parameters + 16 * of.adapter + activations(of, ONE_BY_ONE)


def test_the_quickest_way_that_fits_is_taken():
    ways = [Way(8, again=False), Way(8, again=True), Way(1, again=True)]
    needs = [training(LARGE, way) for way in ways]
    assert needs == sorted(needs, reverse=True) and needs[-1] > 14 * GB
    for way, need in zip(ways, needs, strict=True):
        assert way_of("m", LARGE, Memory(need, 200 * GB), 8) == way
        assert way_of("m", LARGE, Memory(need - 1, 200 * GB), 8) != way if way is not ways[-1] else True
    assert way_of("m", LARGE, None, 8) == ONE_BY_ONE
    assert way_of("m", LARGE, Memory(10**12, 10**12), 8, alone=False) == ways[1]


def test_what_does_not_fit_is_refused_with_both_figures():
    with pytest.raises(AgentevolveError, match=r"^big: fine-tuning takes about \d+\.\d GB of the GPU's memory") as refused:
        way_of("big", LARGE, Memory(8 * GB, 80 * GB), 8)
    assert "with a longest row of 2000 tokens; 8.0 GB of 80.0 GB are free (a vLLM server beside it keeps" in str(refused.value)
    with pytest.raises(AgentevolveError, match=r"are free .*; fewer rows for each process \(batch_size\) take less"):
        way_of("big", LARGE, Memory(8 * GB, 80 * GB), 8, alone=False)


def test_it_is_refused_before_the_weights_are_read_and_nothing_is_written(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "base")
    whole = (copied / "model.safetensors").read_bytes()
    head = 8 + int.from_bytes(whole[:8], "little")
    damaged = bytearray(whole)
    damaged[head:] = bytes(len(whole) - head)  # the head alone is read
    (copied / "model.safetensors").write_bytes(damaged)
    with pytest.raises(AgentevolveError, match=r"base: fine-tuning takes about 0\.0 GB of the GPU's memory"):
        tiny.train(copied, EXAMPLES, tmp_path / "out", SETTINGS, seed=1, base="tiny", memory=lambda: Memory(1000, 2000))
    assert [one.name for one in tmp_path.iterdir()] == ["base"]


def test_a_vllm_server_takes_what_is_free():
    assert share_for("m", 14 * GB, None) is None
    assert share_for("m", 14 * GB, Memory(80 * GB, 80 * GB)) == 0.9
    assert share_for("m", 14 * GB, Memory(40 * GB, 80 * GB)) == 0.48
    with pytest.raises(AgentevolveError, match=r"m: its weights take 14.0 GB of the GPU's memory; 15.0 GB of 80.0 GB are free"):
        share_for("m", 14 * GB, Memory(15 * GB, 80 * GB))
