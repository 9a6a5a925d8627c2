"""A new policy out of entries and examples; what needs weights is tested where they are trained."""

import sys
from pathlib import Path

import pytest
import torch
from worlds import learner, make_tasks, new_run, use_model

from agentevolve.act.prompting import shown
from agentevolve.act.rollout import rollout
from agentevolve.local.adapter import LoraSettings, read_adapter
from agentevolve.local.rows import render
from agentevolve.memory import read_entries
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry, Message
from agentevolve.refine import demos
from agentevolve.update import examples, finetune, remember

sys.path.append(str(Path(__file__).parents[1] / "local"))
import tiny

POLICY = Policy(model="random")


@pytest.fixture
def won(tmp_path):
    """Attempts that recalled a demo and won, the run they lie in, and the policy that made them."""
    run = new_run(tmp_path / "run", workers=1)
    oracle = rollout(Policy(model="oracle"), make_tasks(1), run, phase="first")
    policy = remember(POLICY, demos(oracle, 1), run)
    model = ScriptedModel(learner)
    use_model(run, model, policy)
    yield rollout(policy, make_tasks(2), run, phase="p"), run, model
    run.close()


def test_remembering_gives_a_policy_that_recalls_up_to_its_round(tmp_path):
    run = new_run(tmp_path)
    first = Entry(id="a", kind="demo", key="k", text="t", env="e", round=1)
    once = remember(POLICY, [first], run)
    run.round = 2
    twice = remember(once, [first, first.model_copy(update={"id": "b", "round": 2})], run)
    run.close()
    assert [entry.id for entry in read_entries(tmp_path / "memory")] == ["a", "b"]
    assert (once.memory, once.as_of, twice.as_of) == (str(tmp_path / "memory"), 1, 2)
    assert POLICY.memory is None


def test_an_example_is_exactly_what_the_model_was_shown_when_memory_is_kept(won):
    attempts, _, model = won
    for attempt, row in zip(attempts, examples(attempts, keep_memory=True), strict=True):
        opening = f"{attempt.context}\n{shown(attempt.prompt, attempt.actions, True)}"
        asked = [messages for messages, _ in model.calls if opening in [message.content for message in messages]]
        assert row.prompt == asked[0]
        assert row.prompt + row.completion[:-1] == asked[-1]
        assert row.completion[-1] == Message(role="assistant", content=attempt.turns[-1].action)
        assert (row.id, row.sources) == (attempt.id, (attempt.id,))


def test_memory_is_stripped_unless_it_is_kept(won):
    attempts, _, _ = won
    assert all(attempt.demos and "game was won" in attempt.context for attempt in attempts)
    kept, stripped = examples(attempts, keep_memory=True), examples(attempts)
    for attempt, long, short in zip(attempts, kept, stripped, strict=True):
        assert long.prompt[1:-1] == attempt.demos and "game was won" in long.prompt[-1].content
        assert short.prompt[1].content == shown(attempt.prompt, attempt.actions, True)
        assert (long.prompt[0], long.completion) == (short.prompt[0], short.completion)


def test_what_is_learnt_comes_after_the_prompt_and_begins_and_ends_with_an_action(won):
    attempts, _, _ = won
    for attempt, row in zip(attempts, examples(attempts, keep_memory=True), strict=True):
        turn = ["assistant", "user"]
        assert [message.role for message in row.prompt] == ["system", *turn[::-1] * 3, "user"]
        said = [message.content for message in row.completion if message.role == "assistant"]
        assert said == [turn.action for turn in attempt.turns]
        assert [message.role for message in row.completion] == ["assistant", "user"] * 2 + ["assistant"]
        assert attempt.turns[-1].observation not in row.completion[-1].content


def test_only_solved_attempts_become_examples(won):
    attempts, _, _ = won
    lost = attempts[0].model_copy(update={"reward": 0.5})
    broken = attempts[0].model_copy(update={"end": "error"})
    assert [row.id for row in examples([lost, broken, attempts[1]])] == [attempts[1].id]


def test_held_out_attempts_become_no_examples(tmp_path):
    found = rollout(Policy(model="oracle"), make_tasks(1, split="val"), new_run(tmp_path), phase="p")
    with pytest.raises(ValueError, match="held-out tasks may not be learnt from: corridor/val/100"):
        examples(found)


def test_without_examples_the_policy_stays_as_it_is(tmp_path):
    run = new_run(tmp_path)
    assert finetune(POLICY, [], run, "round-1", LoraSettings()) is POLICY
    assert not (tmp_path / "adapters").exists()


@pytest.fixture
def base(tmp_path):
    """A tiny llama as a model that can be fine-tuned in a second."""
    torch.set_num_threads(1)
    return Policy(model=f"local/{tiny.folder(tmp_path / 'tiny')}")


def test_rows_that_are_cut_or_left_out_are_told_in_one_line_and_not_learnt(won, base, capsys):
    attempts, run, _ = won
    rows = examples(attempts)
    fits = max(len(render(row, tiny.tokenizer()).ids) for row in rows)
    long = rows[0].model_copy(update={"id": "long", "completion": rows[0].completion * 9})
    late = rows[0].model_copy(update={"id": "late", "sources": ("lost",), "prompt": (tiny.user("x" * fits),)})
    settings = LoraSettings(rank=4, epochs=1, max_length=fits)
    policy = finetune(base, [*rows, long, late], run, "round-1", settings)
    assert capsys.readouterr().err == (
        f"round-1: 1 rows cut to {fits} tokens; 1 rows left out (1 × no answer within {fits} tokens)\n"
    )
    info = read_adapter(Path(policy.adapter))
    assert info.examples == (*(row.id for row in rows), "long")
    assert "lost" not in info.sources
    finetune(base, rows, run, "round-2", settings)
    assert capsys.readouterr().err == ""


def test_a_training_that_fails_leaves_neither_an_adapter_nor_a_cost(won, base):
    attempts, run, _ = won
    odd = [row.model_copy(update={"weight": float("nan")}) for row in examples(attempts)]
    with pytest.raises(AgentevolveError, match="the training failed: loss is nan"):
        finetune(base, odd, run, "round-1", LoraSettings(rank=4, epochs=1))
    assert list((run.folder / "adapters").iterdir()) == []
    assert not [name for name in run.facts if "train" in name]


def test_only_a_local_model_is_fine_tuned(won):
    attempts, run, _ = won
    rows = examples(attempts)
    with pytest.raises(AgentevolveError, match="only a local model can be fine-tuned, not 'openai/x'; known: local/"):
        finetune(Policy(model="openai/x"), rows, run, "round-1", LoraSettings())
    assert not (run.folder / "adapters").exists()


def test_a_folder_that_is_no_adapter_is_not_taken_for_one(won):
    attempts, run, _ = won
    (run.folder / "adapters" / "round-1").mkdir(parents=True)
    with pytest.raises(AgentevolveError, match="not an adapter"):
        finetune(Policy(model="local/smollm2-135m"), examples(attempts), run, "round-1", LoraSettings())
