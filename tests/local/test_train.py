import math
import shutil
import sys

import pytest
import tiny
import torch

from agentevolve.local import catalog
from agentevolve.local.adapter import LoraSettings, lora_settings, read_adapter, read_rows
from agentevolve.local.rows import IGNORED, render
from agentevolve.local.sft import build_trainer
from agentevolve.local.train import check_trainable, load_base, rows_of, train_lora
from agentevolve.protocols import AgentevolveError

ROWS = [tiny.example("Where?", "go north", "take"), tiny.example("What?", "a coin"), tiny.example("Who?", "me", "you", "they")]
QUICK = LoraSettings(rank=4, alpha=8, epochs=2, batch_size=2, learning_rate=0.01)
NAMES = ["adapter.gguf", "adapter_config.json", "adapter_model.safetensors", "agentevolve.json", "rows.jsonl"]
CONNECTIONS: list[str] = []
sys.addaudithook(lambda event, args: CONNECTIONS.append(event) if event in ("socket.connect", "socket.getaddrinfo") else None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)  # two threads for such small work only wait for each other
    return tiny.folder(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def first(folder, tmp_path_factory):
    """An adapter of two optimiser steps an epoch."""
    out = tmp_path_factory.mktemp("first") / "adapter"
    tiny.train(folder, ROWS, out, QUICK, seed=1, base="tiny")
    return out


def weights(out):
    return (out / "adapter_model.safetensors").read_bytes()


def test_training_lowers_the_loss_and_says_what_it_did(folder, tmp_path, capfd):
    CONNECTIONS.clear()
    steps = []
    longer = QUICK.model_copy(update={"epochs": 15})
    result = tiny.train(folder, ROWS, tmp_path / "out", longer, seed=1, base="tiny", progress=lambda *step: steps.append(step))
    rows = [render(example, tiny.tokenizer()) for example in ROWS]
    assert result.loss_last < result.loss_first - 0.4
    assert result.loss_first == pytest.approx(sum(loss for *_, loss in steps[:3]) / 3)
    assert [step[:2] for step in steps] == [(step, 30) for step in range(1, 31)]
    assert result.steps == 30
    assert result.tokens == 15 * sum(len(row.ids) for row in rows)
    assert result.labelled == 15 * sum(label != IGNORED for row in rows for label in row.labels)
    assert result.peak_memory_bytes > 10**7
    info = read_adapter(tmp_path / "out")
    assert (info.base, info.seed, info.settings, info.start) == ("tiny", 1, longer, None)
    assert info.examples == ("Where?", "What?", "Who?")
    assert read_rows(tmp_path / "out") == ROWS
    assert info.sources == ("trajectory Where?", "trajectory What?", "trajectory Who?")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == NAMES
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert str(folder) not in (tmp_path / "out" / "adapter_config.json").read_text()
    assert capfd.readouterr() == ("", "")
    assert CONNECTIONS == []


def test_the_seed_decides_the_adapter(folder, first, tmp_path):
    tiny.train(folder, ROWS, tmp_path / "same", QUICK, seed=1, base="tiny")
    tiny.train(folder, ROWS, tmp_path / "other", QUICK, seed=2, base="tiny")
    assert weights(tmp_path / "same") == weights(first)
    assert weights(tmp_path / "other") != weights(first)


def test_the_head_runs_at_learnt_positions_only_and_the_loss_is_the_models_own(folder, tmp_path):
    model, tokenizer = load_base(folder)
    rows = [render(example, tokenizer) for example in ROWS]
    trainer = build_trainer(model, tokenizer, rows, tmp_path, QUICK, seed=0)
    shapes = []
    model.lm_head.register_forward_hook(lambda module, given, made: shapes.append(tuple(made.shape)))
    for row in rows:
        batch = tiny.fed(trainer.model, [row._asdict()])
        loss = trainer.compute_loss(trainer.model, batch)
        assert shapes[-1] == (1, sum(label != IGNORED for label in row.labels), 258)
        own = model(input_ids=batch["input_ids"], labels=batch["labels"]).loss
        assert loss.item() == pytest.approx(own.item(), rel=1e-5)


def test_several_rows_at_a_time_have_the_loss_of_each_times_its_weight(folder, tmp_path):
    model, tokenizer = load_base(folder)
    rows = [render(example.model_copy(update={"weight": 1.0 + place}), tokenizer) for place, example in enumerate(ROWS)]
    trainer = build_trainer(model, tokenizer, rows, tmp_path, QUICK, seed=0)

    def loss(rows):
        batch = tiny.fed(trainer.model, [row._asdict() for row in rows])
        return trainer.compute_loss(trainer.model, batch, num_items_in_batch=10).item()

    assert loss(rows) == pytest.approx(sum(loss([row]) for row in rows), rel=1e-5)
    assert loss([rows[2]]) == pytest.approx(3 * loss([rows[2]._replace(weight=1.0)]), rel=1e-5)


def test_training_goes_on_from_an_adapter(folder, first, tmp_path):
    still = QUICK.model_copy(update={"learning_rate": 1e-12, "epochs": 1})
    fresh = tiny.train(folder, ROWS, tmp_path / "fresh", still, seed=1, base="tiny")
    on = tiny.train(folder, ROWS, tmp_path / "on", still, seed=1, base="tiny", start=first)
    assert on.loss_first < fresh.loss_first
    assert read_adapter(tmp_path / "on").start == read_adapter(first).identity
    from safetensors.numpy import load_file

    before, after = (load_file(path / "adapter_model.safetensors") for path in (first, tmp_path / "on"))
    assert before.keys() == after.keys()
    assert all(abs(before[name] - after[name]).max() < 1e-9 for name in before)


def test_an_adapter_that_does_not_fit_is_no_start(folder, first, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(AgentevolveError, match="was trained on tiny, not on another"):
        tiny.train(folder, ROWS, out, QUICK, seed=1, base="another", start=first)
    with pytest.raises(AgentevolveError, match="rank is 4; it cannot go on with 8"):
        tiny.train(folder, ROWS, out, QUICK.model_copy(update={"rank": 8}), seed=1, base="tiny", start=first)
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_fails_leaves_nothing(folder, tmp_path):
    def stop(step, steps, loss):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.train(folder, ROWS, tmp_path / "out", QUICK, seed=1, base="tiny", progress=stop)
    with pytest.raises(AgentevolveError, match="nothing to learn in 3 examples: 3 × no answer within 5 tokens"):
        tiny.train(folder, ROWS, tmp_path / "out", QUICK.model_copy(update={"max_length": 5}), seed=1, base="tiny")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_training_left_is_replaced(folder, first, tmp_path):
    (tmp_path / ".out.partial" / "checkpoint").mkdir(parents=True)
    tiny.train(folder, ROWS, tmp_path / "out", QUICK, seed=1, base="tiny")
    assert weights(tmp_path / "out") == weights(first)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("changes", [{"dropout": 0.2}, {"objective": "grpo", "kl": 0.1}])
@pytest.mark.parametrize("stop", [2, 3, 5])
def test_a_training_that_was_ended_goes_on_to_the_same_weights(folder, tmp_path, stop, changes):
    """Saved after each step: what is asked to end, at whichever step, goes on after the one before."""
    settings = QUICK.model_copy(update={"epochs": 3} | changes)
    whole = tiny.train(folder, ROWS, tmp_path / "whole", settings, seed=1, base="tiny")
    steps = []

    def end(step, steps, loss):
        if step == stop:
            raise SystemExit(130)

    with pytest.raises(SystemExit):
        tiny.train(folder, ROWS, tmp_path / "out", settings, seed=1, base="tiny", progress=end, every=0.0)
    (kept,) = [path for path in tmp_path.iterdir() if path.name.endswith(".checkpoints")]
    assert (kept / f"checkpoint-{stop - 1}" / "trainer_state.json").is_file()
    (kept / f"checkpoint-{stop}").mkdir()  # one that a kill tore: it has no mark
    result = tiny.train(folder, ROWS, tmp_path / "out", settings, seed=1, base="tiny", progress=lambda *step: steps.append(step))
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")
    assert [step for step, *_ in steps] == list(range(1, 7))
    assert (result.loss_first, result.loss_last, result.tokens) == (whole.loss_first, whole.loss_last, whole.tokens)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == NAMES


def test_what_is_kept_of_another_training_is_not_gone_on_with(folder, first, tmp_path):
    def end(step, steps, loss):
        if step == 2:
            raise SystemExit(130)

    other = QUICK.model_copy(update={"learning_rate": 0.02})
    with pytest.raises(SystemExit):
        tiny.train(folder, ROWS, tmp_path / "out", other, seed=1, base="tiny", progress=end, every=0.0)
    tiny.train(folder, ROWS, tmp_path / "out", QUICK, seed=1, base="tiny")
    assert weights(tmp_path / "out") == weights(first)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_adapter_is_never_overwritten(folder, first):
    with pytest.raises(AgentevolveError, match="exists already"):
        tiny.train(folder, ROWS, first, QUICK, seed=1, base="tiny")


@pytest.mark.parametrize(
    ("weight", "what"),
    [
        (math.nan, "loss is nan at step 1 of 2"),
        (math.inf, "loss is inf at step 1 of 2"),
        (1e30, "grad_norm is inf at step 1 of 2"),
    ],
)
def test_a_loss_that_is_no_number_stops_the_training_and_nothing_is_written(folder, tmp_path, weight, what):
    odd = [ROWS[0], ROWS[1], ROWS[2].model_copy(update={"weight": weight})]
    with pytest.raises(AgentevolveError, match=r"the training failed: .*; nothing was written") as failed:
        tiny.train(folder, odd, tmp_path / "out", QUICK.model_copy(update={"batch_size": 3}), seed=1, base="tiny")
    assert what in str(failed.value)
    assert "\n" not in str(failed.value)
    assert list(tmp_path.iterdir()) == []


def test_what_was_left_out_or_cut_is_told_and_not_recorded_as_learnt(folder, tmp_path):
    late = tiny.example("Where?" * 9, "x")
    most = len(render(ROWS[1], tiny.tokenizer()).ids)
    settings = QUICK.model_copy(update={"max_length": most, "epochs": 1})
    result = tiny.train(folder, [late, *ROWS], tmp_path / "out", settings, seed=1, base="tiny")
    info = read_adapter(tmp_path / "out")
    assert (result.cut, result.dropped) == (info.cut, info.dropped) == (2, {f"no answer within {most} tokens": 1})
    assert info.examples == tuple(row.id for row in ROWS)
    assert late.sources[0] not in info.sources
    assert read_rows(tmp_path / "out") == ROWS


NUMBERS = [name for name, field in LoraSettings.model_fields.items() if field.annotation in (int, float)]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, 1e12, "much", None])
def test_a_setting_out_of_range_is_one_line(name, value):
    with pytest.raises(AgentevolveError, match=f"^{name}: .+, not ") as refused:
        lora_settings(**{name: value})
    assert "\n" not in str(refused.value)


def test_an_unknown_setting_is_one_line():
    with pytest.raises(AgentevolveError, match="unknown key ranks; known: rank, "):
        lora_settings(ranks=3)


def without_template(folder):
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda folder: (folder / "config.json").write_text('{"model_type": "mamba"}'), "its architecture is 'mamba'"),
        (lambda folder: (folder / "config.json").write_text("{"), "not JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "a list, not a mapping"),
        (without_template, "the model has no chat template"),
        (
            lambda folder: (folder / "chat_template.jinja").write_text("{% if %}"),
            "the chat template fails: Expected an expression",
        ),
        (
            lambda folder: (folder / "chat_template.jinja").write_text("{{ raise_exception('no') }}"),
            "the chat template fails: no",
        ),
        (lambda folder: (folder / "chat_template.jinja").write_text("{{ messages }}"), "the template"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "its tokenizer cannot be read"),
    ],
)
def test_a_base_that_cannot_be_trained_is_refused_from_its_small_files_alone(folder, tmp_path, spoil, why):
    copied = tmp_path / "odd"
    shutil.copytree(folder, copied)
    (copied / "model.safetensors").write_bytes(b"not read")
    check_trainable(catalog.resolve(str(copied)))
    spoil(copied)
    with pytest.raises(AgentevolveError, match="odd cannot be fine-tuned: ") as refused:
        check_trainable(catalog.resolve(str(copied)))
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_shipped_model_can_be_trained():
    check_trainable(catalog.resolve("smollm2-135m"))


def test_a_base_of_another_architecture_is_refused(folder, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    rows = rows_of(folder, ROWS, QUICK)
    with pytest.raises(AgentevolveError, match="architecture is 'mamba'"):
        train_lora(tmp_path, rows, tmp_path / "out", QUICK, seed=1, base="x")
    with pytest.raises(AgentevolveError, match=r"config\.json is missing"):
        train_lora(tmp_path / "none", rows, tmp_path / "out", QUICK, seed=1, base="x")
