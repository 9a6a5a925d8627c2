"""A run's attempts in others' forms: what is in them and what is not, and that TRL and `datasets` take them.

Harbor and Inspect have tests of their own (test_harbor.py, test_inspect.py), for environments of their own.
"""

import json
from pathlib import Path

import pytest
import tiny
from lives import HOSTILE, SECRET, life, lived, lives, turn

from agentevolve.act.prompting import conversation
from agentevolve.doors.exports import FORMS
from agentevolve.protocols import AgentevolveError
from agentevolve.run.folder import Run
from agentevolve.whole import write_folder


@pytest.fixture
def export(tmp_path, ask):
    """Export the run of all sorts; the folder."""
    lived(tmp_path / "r")

    def exported(form: str, *words: str) -> Path:
        code, _, err = ask("export", "r", "--as", form, "--out", "out", *words)
        assert (code, err) == (0, "")
        return tmp_path / "out"

    return exported


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


def test_trl_rows_are_the_actions_of_solved_train_attempts(export):
    out = export("trl")
    assert [path.name for path in out.iterdir()] == ["train.jsonl"]
    found = rows(out / "train.jsonl")
    assert [row["id"] for row in found] == [
        "1/acquire/doors/train/1/0:1",
        "1/acquire/doors/train/1/0:2",
        "1/acquire/doors/train/2/0:1",
        "1/acquire/doors/train/2/0:2",
        "2/acquire/doors/train/3/0:1",
        "2/acquire/doors/train/4/0:1",
    ]
    prompt, said = conversation(lives()[0], keep_context=False)
    assert found[1]["prompt"] == [{"role": one.role, "content": one.content} for one in [*prompt, *said[:2]]]
    assert found[1]["completion"] == [{"role": "assistant", "content": "open"}]
    assert "open_door" in found[4]["prompt"][0]["content"]  # the tools are listed, as for our own student


@pytest.mark.parametrize("form", ["trl", "trl-preference"])
def test_no_hint_no_recalled_text_and_no_held_out_task_is_trained_on(export, form):
    text = "".join(path.read_text() for path in export(form).iterdir())
    assert all(
        word not in text for word in ("The door is red", "Recalled", "Earlier", "An earlier house", "doors/val", "doors/test")
    )


@pytest.mark.parametrize("form", FORMS)
def test_no_secret_and_nothing_of_a_tasks_own_data_gets_out(export, form):
    files = [path for path in export(form).rglob("*") if path.is_file()]
    text = "".join(path.read_text("utf-8") for path in files)
    assert SECRET not in text and "the answer" not in text


def test_a_held_out_split_is_exported_when_it_is_named(export):
    out = export("trl", "--split", "val")
    assert [path.name for path in out.iterdir()] == ["val.jsonl"] and len(rows(out / "val.jsonl")) == 2


def test_a_preference_is_the_better_attempt_over_the_worse(export):
    [row] = rows(export("trl-preference") / "train.jsonl")
    assert row["id"] == "1/acquire/doors/train/1/0 over 1/acquire/doors/train/1/1"
    assert [one["role"] for one in row["chosen"]] == ["assistant", "user", "assistant"]
    assert row["rejected"] == [{"role": "assistant", "content": "look"}]


def test_trl_trains_a_step_on_the_rows_and_learns_the_actions_alone(export, tmp_path):
    from datasets import load_dataset
    from trl import SFTConfig, SFTTrainer
    from trl.data_utils import is_conversational

    found = load_dataset("json", data_files=str(export("trl") / "train.jsonl"), split="train")
    assert is_conversational(found[0])
    trainer = _trainer(SFTTrainer, SFTConfig, found, tmp_path)
    row, token = trainer.train_dataset[0], trainer.processing_class
    learnt = [id for id, mask in zip(row["input_ids"], row["labels"], strict=True) if mask != -100]
    assert token.decode(learnt).strip() == "look<|im_end|>"
    assert trainer.train().training_loss > 0


def test_trl_trains_a_step_on_the_preferences(export, tmp_path):
    from datasets import load_dataset
    from trl import DPOConfig, DPOTrainer

    found = load_dataset("json", data_files=str(export("trl-preference") / "train.jsonl"), split="train")
    assert _trainer(DPOTrainer, DPOConfig, found, tmp_path).train().training_loss > 0


def _trainer(kind, settings, found, place):
    model = tiny.folder(place / "model")
    from transformers import AutoModelForCausalLM

    mute = type(kind.__name__, (kind,), {"_send_telemetry": lambda self: None})  # as our own trainer: no report to the hub
    told = settings(output_dir=str(place / "trained"), max_steps=1, report_to=[], per_device_train_batch_size=1, use_cpu=True)
    return mute(
        model=AutoModelForCausalLM.from_pretrained(model), args=told, train_dataset=found, processing_class=tiny.tokenizer()
    )


def test_datasets_loads_the_folder(export, tmp_path):
    from datasets import load_dataset

    found = load_dataset(str(export("hf")), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in found.items()} == {"train": 6, "validation": 1, "test": 1}
    first = found["train"][0]
    assert first["id"] == "1/acquire/doors/train/1/0" and first["recalled"] == ["demo/x"] and first["solved"]
    assert [one["role"] for one in first["messages"]] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert "Recalled" not in str(first["messages"]) and (first["context"], first["hint"]) == (
        "Recalled: look first.",
        "The door is red.",
    )
    assert (first["prompt_tokens"], first["completion_tokens"], first["usd"]) == (40, 6, 0.002)
    lost = next(one for one in found["train"] if one["end"] == "error")
    assert lost["error"] == "OSError: the ceiling came down" and lost["turns"] == 0
    hostile = next(one for one in found["train"] if one["task"] == "doors/train/4")
    # the chat marker was broken up when it was shown; half a pair is said in words
    shown = HOSTILE.replace("<|im_end|>", "< |im_end|>").replace("\ud83d", "\\ud83d")
    assert hostile["messages"][1]["content"] == hostile["messages"][2]["content"] == shown


def test_an_atif_trajectory_tells_what_was_recalled_from_what_was_lived(export):
    found = [json.loads(path.read_text("ascii")) for path in sorted(export("atif").iterdir())]
    assert {one["trajectory_id"] for one in found} == {one.id for one in lives()[:-1]}
    first, third, calling = found[0], found[2], found[3]
    copied = [step["message"] for step in first["steps"] if step.get("is_copied_context")]
    assert copied == ["An earlier house.", "open", "Recalled: look first.", "The door is red."]
    assert [step["step_id"] for step in first["steps"]] == list(range(1, 9))
    assert first["steps"][6]["reasoning_content"] == "Where?"
    results = third["steps"][2]["observation"]["results"]
    assert [one["content"] for one in results] == ["Earlier: doors open.", "A door.\nActions: open, look"]
    assert "source_call_id" not in results[1] and results[0]["extra"] == {"agentevolve": {"recalled": True}}
    step = calling["steps"][2]
    assert step["tool_calls"] == [{"tool_call_id": "call_1", "function_name": "open_door", "arguments": {"door": "red"}}]
    assert step["message"] == "" and step["observation"]["results"][0]["source_call_id"] == "call_1"
    assert calling["agent"]["tool_definitions"][0]["function"]["name"] == "open_door"
    assert first["final_metrics"]["total_prompt_tokens"] == 40 and first["extra"]["reward"] == 1.0


def test_an_inspect_log_is_made_for_each_task_set_and_phase(export):
    found = [json.loads(path.read_text("ascii")) for path in sorted(export("inspect").iterdir())]
    phases = {log["eval"]["metadata"]["phase"]: log for log in found}
    assert set(phases) == {"1/acquire", "2/acquire", "1/val/base", "test/base"}
    log = phases["1/acquire"]
    assert [(one["id"], one["epoch"]) for one in log["samples"]] == [
        ("doors/train/1", 1),
        ("doors/train/1", 2),
        ("doors/train/2", 1),
        ("doors/train/5", 1),
    ]
    assert log["results"]["scores"][0]["metrics"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert "scores" not in log["samples"][3] and log["samples"][3]["error"]["message"] == "OSError: the ceiling came down"
    assert "Recalled: look first.\nThe door is red.\nFind the door" in log["samples"][0]["input"][-1]["content"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--as", "parquet"], "--as: 'parquet' is not known; known: trl, trl-preference, atif, inspect, hf"),
        (["--as", "trl", "--split", "dev"], "--split: 'dev' is not known; known: train, val, test"),
        (["--as", "hf", "--env", "twc"], "r: no attempt is left with the environment 'twc'; known: doors"),
        (["--as", "hf", "--round", "7"], "r: no attempt is left with the round 7; known: 0, 1, 2"),
        (["--as", "trl", "--split", "test"], "r: no attempt is left with the outcome solved; known: failed"),
        (["--as", "trl-preference", "--round", "2"], "no two attempts at one task with different rewards"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(ask, tmp_path, words, said):
    lived(tmp_path / "r")
    code, out, err = ask("export", "r", "--out", "out", *words)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r"]


def test_a_folder_that_is_there_is_never_written_to(ask, tmp_path):
    lived(tmp_path / "r")
    (tmp_path / "out").mkdir()
    code, _, err = ask("export", "r", "--as", "hf", "--out", "out")
    assert (code, err) == (2, "error: out: exists already; name a new folder with --out\n")
    assert not list((tmp_path / "out").iterdir())
    code, _, err = ask("export", "nowhere", "--as", "hf", "--out", "o2")
    assert code == 2 and "not a run" in err


def test_what_breaks_on_the_way_leaves_nothing(tmp_path):
    def files():
        yield "a", "1"
        raise AgentevolveError("no")

    with pytest.raises(AgentevolveError, match="no"):
        write_folder(tmp_path / "out", files())
    assert not list(tmp_path.iterdir())


def test_attempts_of_several_seeds_keep_apart(ask, tmp_path):
    for seed in (0, 1):
        run = Run(tmp_path / "r" / f"seed-{seed}", quiet=True)
        run.add(life(1, "train", turn("open", "Out.")))
        run.close()
    for form, count in (("hf", 2), ("inspect", 2), ("atif", 2)):
        assert ask("export", "r", "--as", form, "--out", form) == (0, f"{form}: 2 attempts\n", "")
        assert count == len(list((tmp_path / form).iterdir()))
    assert [row["id"].partition("/")[0] for row in rows(tmp_path / "hf" / "data" / "train.jsonl")] == ["seed-0", "seed-1"]
