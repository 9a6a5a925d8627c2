"""What is kept of experience, and what is asked about it."""

import pytest
from worlds import make_tasks, new_run, use_model

from agentevolve.policy import Policy
from agentevolve.prompting import transcript
from agentevolve.protocols import AgentevolveError, ModelError
from agentevolve.records import PolicyStamp, Trajectory, Turn
from agentevolve.refine import best, demos, learnable, reflect, unsolved
from agentevolve.run import Run
from agentevolve.stand_ins import ScriptedModel

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
