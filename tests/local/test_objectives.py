"""Preferences and regularisation on a tiny model, each beside the same figure worked out by hand."""

import math

import pytest
import tiny
import torch

from agentevolve.local.adapter import LoraSettings, read_adapter
from agentevolve.local.objectives import clipped, dpo, kto
from agentevolve.local.rows import IGNORED, Row, prepare, render
from agentevolve.local.sft import build_trainer
from agentevolve.local.train import load_base
from agentevolve.protocols import AgentevolveError

SETTINGS = LoraSettings(rank=4, alpha=8, epochs=6, batch_size=2, learning_rate=0.02)
CHOSEN = [tiny.example("Where?", "north", "take"), tiny.example("What?", "a coin"), tiny.example("Who?", "me")]
PAIRS = [one.model_copy(update={"rejected": tiny.example("", "nobody", "drop").completion}) for one in CHOSEN]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    return tiny.folder(tmp_path_factory.mktemp("base") / "tiny")


def by_hand(model, ids: list[int], labels: list[int]) -> float:
    """The log-probability of the labelled tokens, one token after the other, from the whole model's logits."""
    with torch.no_grad():
        logits = model(torch.tensor([ids], device=model.device)).logits[0].double().log_softmax(-1)
    return sum(logits[place - 1, label].item() for place, label in enumerate(labels) if label != IGNORED)


def moved(trainer) -> None:
    """Give the adapter weights that do something."""
    torch.manual_seed(3)
    for name, weights in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.05)


def built(folder, tmp_path, examples, **changes):
    model, tokenizer = load_base(folder)
    model = model.float()
    settings = SETTINGS.model_copy(update=changes)
    rows = prepare(examples, tokenizer, settings.objective, settings.max_length).rows
    return build_trainer(model, tokenizer, rows, tmp_path, settings, seed=0), rows


def batch(trainer, row: Row, place: int) -> dict:
    return tiny.fed(trainer.model, [{"place": place, **row._asdict()}])


def ratios(trainer, row: Row) -> tuple[float, float]:
    """Policy to base, of the row and of what it is set against."""
    model = trainer.model.eval()
    found = []
    for ids, labels in ((row.ids, row.labels), (row.other_ids, row.other_labels)):
        with model.disable_adapter():
            before = by_hand(model, ids, labels)
        found.append(by_hand(model, ids, labels) - before)
    return found[0], found[1]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_dpo_is_the_papers_equation(folder, tmp_path):
    trainer, rows = built(folder, tmp_path, PAIRS, objective="dpo", beta=0.5)
    trainer.refer()
    assert trainer.compute_loss(trainer.model, batch(trainer, rows[0], 0)).item() == pytest.approx(math.log(2) / 2, rel=1e-5)
    moved(trainer)
    for place, row in enumerate(rows):
        chosen, rejected = ratios(trainer, row)
        assert abs(chosen - rejected) > 1e-3
        expected = -math.log(sigmoid(0.5 * (chosen - rejected)))
        assert trainer.compute_loss(trainer.model, batch(trainer, row, place)).item() * 2 == pytest.approx(expected, rel=1e-4)


def test_kto_is_the_papers_equation_with_the_next_examples_completion_as_its_baseline(folder, tmp_path):
    examples = [CHOSEN[0], CHOSEN[1].model_copy(update={"desirable": False}), CHOSEN[2]]
    trainer, rows = built(folder, tmp_path, examples, objective="kto", beta=0.5)
    assert [row.sign for row in rows] == [1, -1, 1]
    crossed = examples[0].model_copy(update={"completion": examples[1].completion})
    assert rows[0].other_ids == render(crossed, tiny.tokenizer()).ids
    trainer.refer()
    moved(trainer)
    for place, row in enumerate(rows):
        ratio, other = ratios(trainer, row)
        expected = 1 - sigmoid(row.sign * 0.5 * (ratio - max(0.0, other)))
        loss = trainer.compute_loss(trainer.model, batch(trainer, row, place))
        assert loss.item() * 2 == pytest.approx(expected, rel=1e-4)
    assert loss.requires_grad


def test_grpo_is_the_papers_equation_clipped_where_a_token_has_moved_far_enough(folder, tmp_path):
    graded = [one.model_copy(update={"weight": weight}) for one, weight in zip(CHOSEN, (1.5, -0.5, 2.0), strict=True)]
    trainer, rows = built(folder, tmp_path, graded, objective="grpo", clip=0.01, batch_size=2, learning_rate=1e-4)
    trainer.refer()
    assert trainer.compute_loss(trainer.model, batch(trainer, rows[0], 0)).item() == pytest.approx(-1.5 / 2, rel=1e-5)
    moved(trainer)
    bounds = []
    for place, row in enumerate(rows):
        model, expected = trainer.model.eval(), []
        for token in [place for place, label in enumerate(row.labels) if label != IGNORED]:
            only = [label if place == token else IGNORED for place, label in enumerate(row.labels)]
            with model.disable_adapter():
                before = by_hand(model, row.ids, only)
            ratio = math.exp(by_hand(model, row.ids, only) - before)
            kept = min(max(ratio, 0.99), 1.01)
            bounds.append((ratio * row.weight > kept * row.weight, ratio != kept))
            expected.append(-min(ratio * row.weight, kept * row.weight))
        loss = trainer.compute_loss(trainer.model, batch(trainer, row, place))
        assert loss.item() * 2 == pytest.approx(sum(expected) / len(expected), rel=1e-4)
    assert {(True, True), (False, True)} <= set(bounds)  # clipped where it has moved the good way, not where the bad one


def test_grpo_raises_what_did_better_than_the_others_and_lowers_what_did_worse(folder, tmp_path):
    better, worse = (tiny.example("Where?", answer, weight=weight) for answer, weight in (("north", 1.0), ("south", -1.0)))
    model, tokenizer = load_base(folder)
    settings = SETTINGS.model_copy(update={"objective": "grpo", "learning_rate": 0.005})
    trainer = build_trainer(
        model.float(), tokenizer, prepare([better, worse], tokenizer, "grpo", 2048).rows, tmp_path, settings, seed=0
    )
    trainer.refer()
    before = [float(one.sum()) for one in trainer.reference]
    trainer.train()
    trainer.refer()
    after = [float(one.sum()) for one in trainer.reference]
    assert after[0] > before[0] and after[1] < before[1]


def test_the_formulas_at_points_that_can_be_checked_in_the_head():
    zero, two = torch.tensor([0.0]), torch.tensor([2.0])
    assert dpo(zero, zero, 0.1).item() == pytest.approx(math.log(2))
    assert dpo(two, zero, 1.0).item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert kto(zero, zero, torch.tensor([1]), 0.1).item() == pytest.approx(0.5)
    ratio = torch.tensor([0.5, 1.0, 1.1, 2.0])
    assert clipped(ratio, torch.tensor([2.0]), 0.2).tolist() == pytest.approx([-1.0, -2.0, -2.2, -2.4])
    assert clipped(ratio, torch.tensor([-2.0]), 0.2).tolist() == pytest.approx([1.6, 2.0, 2.2, 4.0])
    assert kto(two, zero, torch.tensor([-1]), 1.0).item() == pytest.approx(sigmoid(2.0))


def test_kl_is_the_exact_divergence_from_the_base(folder, tmp_path):
    trainer, rows = built(folder, tmp_path, CHOSEN, kl=0.7)
    plain, _ = built(folder, tmp_path, CHOSEN)
    at = [place - 1 for place, label in enumerate(rows[0].labels) if label != IGNORED]

    def loss(one) -> float:
        return one.compute_loss(one.model.eval(), tiny.fed(one.model, [rows[0]._asdict()])).item()

    assert loss(trainer) == pytest.approx(loss(plain), rel=1e-6)  # the base is at no distance from itself
    moved(trainer)
    moved(plain)
    with torch.no_grad():
        ours = trainer.model(torch.tensor([rows[0].ids], device=trainer.model.device)).logits[0, at].double().log_softmax(-1)
        with trainer.model.disable_adapter():
            base = trainer.model(torch.tensor([rows[0].ids], device=trainer.model.device)).logits[0, at].double().log_softmax(-1)
    expected = (ours.exp() * (ours - base)).sum(-1).mean().item()
    assert expected > 1e-4
    assert loss(trainer) - loss(plain) == pytest.approx(0.7 * expected, rel=1e-3)


@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_training_prefers_what_it_should(folder, tmp_path, objective):
    bad = [one.model_copy(update={"completion": one.rejected, "desirable": False, "id": f"not {one.id}"}) for one in PAIRS]
    examples = PAIRS if objective == "dpo" else PAIRS + bad
    settings = SETTINGS.model_copy(update={"objective": objective})
    result = tiny.train(folder, examples, tmp_path / "out", settings, seed=1, base="tiny")
    assert result.loss_last < result.loss_first
    assert read_adapter(tmp_path / "out").settings.objective == objective


def test_a_preference_goes_on_from_an_adapter_and_refers_to_it(folder, tmp_path):
    tiny.train(folder, CHOSEN, tmp_path / "first", SETTINGS, seed=1, base="tiny")
    settings = SETTINGS.model_copy(update={"objective": "dpo", "epochs": 1, "learning_rate": 1e-12})
    on = tiny.train(folder, PAIRS, tmp_path / "on", settings, seed=1, base="tiny", start=tmp_path / "first")
    assert on.loss_first == pytest.approx(math.log(2), rel=0.4)


def test_what_cannot_be_preferred_is_refused(folder, tmp_path):
    with pytest.raises(AgentevolveError, match="nothing to learn in 3 examples: 3 × dpo needs a rejected completion"):
        tiny.train(folder, CHOSEN, tmp_path / "out", SETTINGS.model_copy(update={"objective": "dpo"}), seed=1, base="tiny")
    with pytest.raises(AgentevolveError, match="kto compares each example with another one"):
        tiny.train(folder, CHOSEN[:1], tmp_path / "out", SETTINGS.model_copy(update={"objective": "kto"}), seed=1, base="tiny")
    assert list(tmp_path.iterdir()) == []
