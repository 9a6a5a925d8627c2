"""What is kept of experience, and what is asked about it."""

import pytest
from worlds import make_tasks, new_run, use_model

from agentevolve.act.prompting import transcript
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError, ModelError
from agentevolve.records import Entry, PolicyStamp, Trajectory, Turn
from agentevolve.refine import (
    Pair,
    against,
    agreement,
    best,
    best_worst,
    demos,
    divergence,
    judge,
    keep,
    learnable,
    read_edits,
    reflect,
    unsolved,
    voted,
)
from agentevolve.run.folder import Run

POLICY = Policy(model="random")


def lived(id: str, actions: str = "", task: int = 0, reward: float = 1.0, end: str = "terminated", split: str = "train"):
    """An attempt whose actions are the letters of `actions`."""
    turns = tuple(Turn(action=letter, observation=f"after {letter}") for letter in actions)
    where = make_tasks(task + 1, split=split)[task]
    stamp = PolicyStamp(model="m")
    return Trajectory(
        id=id,
        task=where,
        policy=stamp,
        phase="p",
        prompt=f"prompt {task}",
        turns=turns,
        reward=reward,
        end=end,
        context="CONTEXT",
    )


def ids(found) -> list[str]:
    return [one.id for one in found]


def test_the_shortest_solution_of_each_task_is_kept():
    found = [
        lived("a", "lll"),
        lived("b", "ll"),
        lived("c", "l", reward=0.9),
        lived("d", "llll", task=1),
        lived("e", "", task=2, reward=0),
    ]
    assert ids(best(found)) == ["b", "d"]
    assert ids(best(found[::-1])) == ["b", "d"]


def test_per_task_counts_different_solutions():
    found = [lived("a", "ll"), lived("b", "ll"), lived("c", "rr"), lived("d", "lrl"), lived("e", "rrrr")]
    assert ids(best(found, per_task=1)) == ["a"]
    assert ids(best(found, per_task=3)) == ["a", "c", "d"]
    assert ids(best(found, per_task=9)) == ["a", "c", "d", "e"]


def test_longer_solutions_than_max_turns_are_left_out():
    found = [lived("a", "lll"), lived("b", "llll", task=1)]
    assert ids(best(found, max_turns=3)) == ["a"]
    assert ids(best(found, max_turns=2)) == []


def test_errors_are_never_learnt_from():
    found = [lived("a", "l", end="error"), lived("b", "ll"), lived("c", "l", task=1, end="error")]
    assert ids(learnable(found)) == ids(best(found)) == ["b"]
    assert unsolved(found) == []
    assert [entry.sources for entry in demos(found, 1)] == [("b",)]


@pytest.mark.parametrize("split", ["val", "test"])
def test_held_out_attempts_are_refused_by_everything_that_learns(tmp_path, split):
    found = [lived("a", "l"), lived("b", "l", split=split)]
    run = new_run(tmp_path)
    for learn in (learnable, best, unsolved, lambda some: demos(some, 1), lambda some: reflect(some, POLICY, run)):
        with pytest.raises(ValueError, match=f"held-out tasks may not be learnt from: corridor/{split}/"):
            learn(found)
    assert run.facts == {}


def test_of_a_task_that_no_attempt_solved_the_most_rewarded_one_is_taken():
    found = [
        lived("a", "l", reward=0.0),
        lived("b", "l", reward=0.5),
        lived("c", "l", reward=0.5),
        lived("d", "l", task=1, reward=0.9),
        lived("e", "l", task=1),
        lived("f", "l", task=2, reward=0.7),
    ]
    assert ids(unsolved(found)) == ids(unsolved(found[::-1])) == ["f", "b"]


def test_a_demo_is_found_by_its_prompt_and_shown_as_its_transcript():
    (entry,) = demos([lived("a", "lr"), lived("b", "l", reward=0.5)], 3)
    assert (entry.id, entry.kind, entry.key, entry.round, entry.sources) == ("demo/a", "demo", "prompt 0", 3, ("a",))
    assert entry.text == "prompt 0\n> l\nafter l\n> r\nafter r"
    assert "CONTEXT" not in entry.text


def test_reflections_are_asked_once_also_over_processes(tmp_path):
    lost = [lived("a", "l", reward=0.0), lived("b", "r", task=1, reward=0.0)]
    model = ScriptedModel([" Next time, go left. ", "Next time, go right."])
    run = Run(tmp_path, quiet=True)
    use_model(run, model, POLICY)
    run.round = 2
    entries = reflect(lost, POLICY, run)
    assert [(entry.id, entry.kind, entry.text, entry.key, entry.round, entry.sources) for entry in entries] == [
        ("reflection/a", "reflection", "Next time, go left.", "prompt 0", 2, ("a",)),
        ("reflection/b", "reflection", "Next time, go right.", "prompt 1", 2, ("b",)),
    ]
    assert [transcript(one) in messages[0].content for one, (messages, _) in zip(lost, model.calls, strict=True)] == [True, True]
    assert run.spent().calls == 2
    run.close()
    again = Run(tmp_path, quiet=True)
    silent = ScriptedModel([])
    use_model(again, silent, POLICY)
    again.round = 2
    assert reflect(lost, POLICY, again) == entries
    assert silent.calls == []


def test_a_backend_that_fails_leaves_its_reflection_out(tmp_path):
    def moody(messages, choices):
        if "prompt 0" in messages[0].content:
            raise ModelError("overloaded")
        return "Next time, wait."

    run = new_run(tmp_path)
    use_model(run, ScriptedModel(moody), POLICY)
    lost = [lived("a", "l", reward=0.0), lived("b", "l", task=1, reward=0.0)]
    assert [entry.id for entry in reflect(lost, POLICY, run)] == ["reflection/b"]
    assert run.facts["ask/reflection/a"] == {"text": "", "error": "overloaded"}


def test_the_oracle_cannot_reflect(tmp_path):
    with pytest.raises(AgentevolveError, match="'oracle' writes no text"):
        reflect([lived("a", "l", reward=0.0)], Policy(model="oracle"), new_run(tmp_path))


# --- filters that ask no reward, pairs and rules ---


def test_a_judges_score_stands_in_for_the_reward():
    found = [lived("a", "l", reward=0.0), lived("b", "r", reward=1.0)]
    assert ids(keep(found)) == ["b"]
    assert ids(keep(found, scores={"a": 0.8, "b": 0.2}, at_least=0.6)) == ["a"]


def test_agreement_is_the_share_of_like_attempts_at_the_task():
    found = [lived("a", "ll"), lived("b", "ll"), lived("c", "r"), lived("d", "ll", task=1)]
    assert agreement(found) == {"a": 2 / 3, "b": 2 / 3, "c": 1 / 3, "d": 1.0}


def test_the_judge_is_shown_the_transcript_and_never_the_reward(tmp_path):
    run = new_run(tmp_path)
    model = ScriptedModel(lambda messages, choices: "5" if "prompt 0" in messages[0].content else "2")
    use_model(run, model, POLICY)
    lost, won = lived("a", "l", reward=0.0), lived("b", "l", task=1, reward=1.0)
    assert judge([lost, won], POLICY, run) == {"a": 1.0, "b": 0.4}
    same = [one.model_copy(update={"reward": 1.0 - one.reward, "id": f"{one.id}'"}) for one in (lost, won)]
    judge(same, POLICY, run)
    asked = [messages[0].content for messages, _ in model.calls]
    assert asked[:2] == asked[2:]
    assert all(choices == ("0", "1", "2", "3", "4", "5") for _, choices in model.calls)


def test_best_and_worst_of_a_task_are_paired_and_where_they_part_is_found():
    found = [lived("a", "lrr", reward=0.0), lived("b", "lll"), lived("c", "ll"), lived("d", "l", task=1), lived("e", "r", task=1)]
    (pair,) = best_worst(found)
    assert (pair.better.id, pair.worse.id, divergence(pair)) == ("c", "a", 1)
    assert divergence(Pair(found[1], found[2])) == 2


def test_either_side_may_win_a_pair():
    ours = [lived("a", "l", reward=0.2), lived("b", "l", task=1), lived("c", "l", task=2)]
    theirs = [lived("x", "l"), lived("y", "l", task=1, reward=0.5), lived("z", "l", task=2)]
    assert [(pair.better.id, pair.worse.id) for pair in against(ours, theirs)] == [("x", "a"), ("b", "y")]


SAID = """Some thoughts first.
ADD: Read the map first.
ADD: Read the map first.
- AGREE 1:
EDIT 2: Never walk back.
REMOVE 3: it repeats rule 1
REMOVE 9: there is none
ADD:
"""


def rule(text: str, votes: int) -> Entry:
    return Entry(id=text, kind="insight", key=text, text=text, env="e", round=1, counts={"votes": votes}, sources=("old",))


def test_votes_count_as_in_expel():
    new = rule("", 0).model_copy(update={"id": "insight", "round": 2, "sources": ("t1", "t2")})
    edits = read_edits(SAID)
    assert [(edit.act, edit.place) for edit in edits] == [
        *(("ADD", 0), ("ADD", 0), ("AGREE", 1), ("EDIT", 2), ("REMOVE", 3), ("REMOVE", 9), ("ADD", 0))
    ]
    after = voted([rule("one", 2), rule("two", 3), rule("three", 1)], edits, new)
    assert [(one.text, one.counts["votes"]) for one in after] == [("Never walk back.", 4), ("one", 3), ("Read the map first.", 2)]
    assert [one.sources for one in after] == [("old", "t1", "t2"), ("old",), ("t1", "t2")]
    assert len({one.id for one in after} | {"one", "two", "three"}) == 6
    full = voted([rule(str(n), 4 - n % 2) for n in range(4)], read_edits("REMOVE 1\nREMOVE 2"), new, most=4)
    assert [(one.text, one.counts["votes"]) for one in full] == [("2", 4), ("3", 3), ("0", 1)]
