"""Curricula, instructions and talks: what is practised next, which skills are kept, which instructions win, who talks to whom."""

import json

import pytest
from worlds import Corridor, lamp, make_tasks, new_run, use_model, walker

from agentevolve.acquire import talked_over
from agentevolve.act.rollout import rollout
from agentevolve.evaluate.diagnose import Assessment, assess
from agentevolve.local.adapter import LoraSettings
from agentevolve.memory import read_entries
from agentevolve.methods.gepa import SEED, gepa
from agentevolve.methods.self_talk import self_talk
from agentevolve.methods.voyager import voyager
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.policy import Policy
from agentevolve.protocols import BudgetExceeded, ModelError
from agentevolve.records import PolicyStamp, Trajectory, Turn
from agentevolve.refine import verified
from agentevolve.run.folder import Run

TASKS = make_tasks(4, length=2, limit=3)
POLICY = Policy(model="scripted")


def scripted(folder, script) -> tuple[Run, ScriptedModel]:
    run, model = new_run(folder, workers=1), ScriptedModel(script)
    use_model(run, model, POLICY)
    return run, model


def asked(model) -> list[str]:
    return [messages[-1].content for messages, _ in model.calls]


def told(messages, text) -> bool:
    return any(text in message.content for message in messages)


def lived(task, *actions, reward=1.0, end="terminated") -> Trajectory:
    turns = tuple(Turn(action=action, observation=f"after {action}") for action in actions)
    start, stamp = f"prompt of {task.id}", PolicyStamp(model="m")
    id = f"t/{task.id}/{reward}"
    return Trajectory(id=id, task=task, policy=stamp, phase="p", prompt=start, turns=turns, reward=reward, end=end)


def test_an_assessment_is_the_mean_reward_and_an_objective_drawn_from_failed_and_solved_attempts(tmp_path):
    run, model = scripted(tmp_path, ["Longer walks.\n2. Rest."])
    attempts = [lived(task, "left", reward=reward) for task, reward in zip(make_tasks(6), (1, 1, 1, 0.5, 0, 0), strict=True)]
    broken = lived(make_tasks(7)[6], end="error")
    assert assess([*attempts, broken], POLICY, run) == Assessment(3.5 / 6, "Longer walks."), "the lost one has no outcome"
    (prompt,) = asked(model)
    assert (prompt.count("An attempt that failed"), prompt.count("An attempt that succeeded")) == (2, 2)
    assert "prompt of corridor/train/3" in prompt and "58 percent" in prompt  # of the failed ones the nearest miss
    assert broken.prompt not in prompt
    empty, silent = scripted(tmp_path / "b", [])
    assert assess([], POLICY, empty) == Assessment(0.0, "") and silent.calls == []


@pytest.mark.parametrize("split", ["val", "test"])
def test_what_is_practised_next_does_not_depend_on_held_out_attempts(tmp_path, split):
    run, model = scripted(tmp_path, ["Cheat."])
    (held,) = make_tasks(1, split=split)
    with pytest.raises(ValueError, match=f"held-out tasks may not be learnt from: corridor/{split}"):
        assess([lived(TASKS[0], "left"), lived(held, "left")], POLICY, run)
    with pytest.raises(ValueError, match=f"held-out tasks may not be practised: corridor/{split}"):
        talked_over(POLICY, [held], run)
    with pytest.raises(ValueError, match=f"held-out tasks may not be practised: corridor/{split}"):
        gepa(POLICY, [*TASKS, held], run)
    assert model.calls == [] and run.trajectories == {}


class Fickle(Corridor):
    """A corridor whose lamp can be lit only once, so that nothing works twice."""

    lit: set[str] = set()  # noqa: RUF012

    def step(self, action):
        step = super().step(action)
        if step.terminated and self.task.id in self.lit:
            return step._replace(reward=0.0, info=step.info | {"score": 0.0})
        self.lit |= {self.task.id} if step.terminated else set()
        return step


def test_only_a_program_that_works_again_is_a_skill(tmp_path):
    good = [lived(task, lamp(task), lamp(task)) for task in TASKS[:2]]
    claimed = lived(TASKS[2], "wait", "wait")
    fickle = TASKS[3].model_copy(update={"env": f"{__name__}:Fickle"})
    Fickle.lit = {fickle.id}
    gone = lived(TASKS[3].model_copy(update={"env": "worlds:Unopened", "id": "gone"}), "left")
    failed = lived(TASKS[2], "left", "left", reward=0.5)
    skills = verified([*good, claimed, lived(fickle, "right", "right"), gone, failed], 3)
    assert [(one.kind, one.key, one.text, one.round, one.sources) for one in skills] == [
        ("skill", one.prompt, f"{lamp(one.task)}\n{lamp(one.task)}", 3, (one.id,)) for one in good
    ]
    Fickle.lit = set()
    assert len(verified([lived(fickle, "right", "right")], 1)) == 1


def test_voyager_repairs_with_feedback_and_critique_and_stores_what_is_verified(house):
    def repaired(messages, choices):
        text = messages[-1].content
        if "What was wrong with it" in text:
            return f"CRITIQUE {sum('What was wrong with it' in prompt for prompt in asked(home.model))}"
        if "Write the settings" in text or "should be practised next" in text:
            return ""
        knows = "lamp is left" in text or told(messages, "CRITIQUE 3") or told(messages, "CRITIQUE 4")
        return walker(messages, choices) if knows else "wait"

    home = house(repaired)
    policy = voyager(home.policy, TASKS, home.run, new=1)
    right = [task for task in TASKS if lamp(task) == "right"]
    tries = {one.id: one for one in home.run.trajectories.values()}
    assert {id.split("/")[2] for id in tries} == {"try-0", "try-1", "try-2"}  # solved at the second repair
    for number in (1, 2):
        hints = [tries[f"1/acquire/try-{number}/{task.id}/0"].hint for task in right]
        assert [f"CRITIQUE {2 * number - 1 + place}" in hint for place, hint in enumerate(hints)] == [True, True]
        assert all("> wait\nCorridor" in hint and "you stand at 0" in hint for hint in hints)
    skills = read_entries(home.run.folder / "memory", kind="skill")
    assert {one.task: one.text for one in skills} == {task.id: f"{lamp(task)}\n{lamp(task)}" for task in TASKS}
    assert policy.recall.nearest == {"skill": 5} and policy.memory
    rollout(policy, make_tasks(1, split="val", length=2), home.run, phase="look")
    assert home.seen("look")[0].count("Actions that have worked before") == 2  # equal texts are shown once


def test_voyager_repairs_at_most_four_times(house):
    home = house(lambda messages, choices: "wait" if len(messages) > 1 else "hmm")
    voyager(home.policy, TASKS[:1], home.run, new=0)
    assert len(home.run.trajectories) == 5
    assert sum("What was wrong with it" in prompt for prompt in asked(home.model)) == 4  # none after the last attempt
    assert read_entries(home.run.folder / "memory", kind="skill") == []


def test_voyager_s_next_tasks_follow_its_assessment_and_what_is_known_of_the_world(house):
    def curious(messages, choices):
        text = messages[-1].content
        if "should be practised next" in text:
            return "SHORTER WALKS"
        if "Write the settings" in text:
            return '{"length": 1}'
        return walker(messages, choices)

    home = house(curious)
    voyager(home.policy, TASKS[:2], home.run, new=0)
    assert not any("should be practised next" in prompt for prompt in asked(home.model))  # nothing was lived through yet
    home.run.round = 2
    policy = voyager(home.policy, TASKS[:2], home.run, new=1, goals=1, nearest=2)
    (proposal,) = [prompt for prompt in asked(home.model) if "Write the settings" in prompt]
    assert "What is to be practised next: SHORTER WALKS" in proposal
    assert "A row of cells with a lamp at one end" in proposal
    (attempt,) = home.run.acquired(2)
    assert attempt.task.data["length"] == 1 and policy.recall.nearest == {"skill": 2}
    fresh = house(curious)
    voyager(fresh.policy, TASKS, fresh.run, new=1, goals=2)
    lengths = [one.task.data["length"] for one in fresh.run.acquired(1)]
    assert sorted(lengths) == [1, 2]  # where nothing was tried, the new ones come first


# ---- GEPA


def teachable(reflections, prompts):
    """Walks left, right once it is instructed to, and reflects with the given answers."""
    answers = iter(reflections)

    def answer(messages, choices):
        text = messages[-1].content
        if "write a new instruction" in text:
            prompts.append(text)
            return f"```\n{next(answers, 'Sit down.')}\n```"
        knows = "lamp is left" in text or "Walk to the lamp, also right." in messages[0].content
        return walker(messages, choices) if knows else "wait"

    return answer


def test_gepa_keeps_instructions_that_are_strictly_better_and_returns_the_best(tmp_path, capsys):
    prompts: list[str] = []
    run, _ = scripted(tmp_path, teachable(["Wait and see.", "Walk to the lamp, also right."], prompts))
    tasks = make_tasks(10, length=2, limit=3)
    policy = gepa(POLICY, tasks, run, calls=60, pareto=4)
    assert policy.instructions == "Walk to the lamp, also right."
    assert policy.model_dump(exclude={"instructions"}) == POLICY.model_dump(exclude={"instructions"})
    assert SEED in prompts[0] and SEED in prompts[1]  # the first change was no better, so its parent is reflected on again
    assert prompts[0].count("## The attempt") == 3 and "0% of the reward was earned" in prompts[0]
    front, feedback = {task.id for task in tasks[:4]}, {task.id for task in tasks[4:]}
    by_phase: dict[str, set[str]] = {}
    for one in run.trajectories.values():
        by_phase.setdefault(one.phase, set()).add(one.task.id)
    met = sorted(by_phase.values(), key=len)
    assert [len(met[0]), met[0] <= feedback] == [3, True]  # the refused one met its minibatch and nothing else
    assert all(front <= ids for ids in met[1:]) and len(met) == 3
    assert {one.task.split for one in run.trajectories.values()} == {"train"}
    assert len(run.trajectories) <= 60 and capsys.readouterr() == ("", "")
    run.close()
    assert {path.name for path in tmp_path.iterdir()} == {"journal.jsonl", "memory"}


def test_gepa_resumes_without_paying_again_and_keeps_the_given_instructions_where_nothing_is_better(tmp_path):
    begun = POLICY.using(instructions="Be brief.")
    prompts: list[str] = []
    run, _ = scripted(tmp_path, teachable([], prompts))
    first = gepa(begun, TASKS, run, calls=20)
    assert first.instructions == "Be brief." and "Be brief." in prompts[0] and len(prompts) > 1
    spent = run.spent()
    run.close()
    resumed, silent = Run(tmp_path, quiet=True), ScriptedModel([])
    use_model(resumed, silent, POLICY)
    assert gepa(begun, TASKS, resumed, calls=20) == first
    assert silent.calls == [] and resumed.spent() == spent


def test_gepa_stops_where_the_budget_ends_or_goes_on_where_a_reflection_fails(tmp_path):
    def failing(error):
        def answer(messages, choices):
            if "write a new instruction" in messages[-1].content:
                raise error
            return "wait"

        return answer

    run, model = scripted(tmp_path / "a", failing(BudgetExceeded("the end")))
    with pytest.raises(BudgetExceeded, match="the end"):
        gepa(POLICY, TASKS, run, calls=30)
    assert sum("write a new" in prompt for prompt in asked(model)) <= 2  # the library asks again once
    run, model = scripted(tmp_path / "b", failing(ModelError("overloaded")))
    assert gepa(POLICY, TASKS, run, calls=30).instructions == SEED
    assert len(run.trajectories) == len(TASKS)


# ---- Self-Talk

QUICK = LoraSettings(rank=2, alpha=4, epochs=1)


def talking(messages, choices):
    text = messages[-1].content
    if "You are the coach" in text:
        return "Do not wait,\nwalk to where the lamp is."
    if "Write down the plan" in text:
        return "PLAN: right, right" if "Coach: Do not wait, walk" in text else "PLAN: none"
    if "You are the player" in text:
        return "I listen." if "Coach:" in text else "I wait."
    return walker(messages, choices) if told(messages, "PLAN: right, right") else "wait"


def test_two_roles_talk_and_each_hears_the_other(tmp_path):
    run, model = scripted(tmp_path, talking)
    hints = talked_over(POLICY, TASKS[:1], run, exchanges=2)
    assert hints == {TASKS[0].id: "The plan that you and your coach have made: PLAN: right, right"}
    talks = asked(model)
    roles = ["coach" if "You are the coach" in prompt else "player" for prompt in talks]
    assert roles == ["player", "coach", "player", "coach", "player"] and "Write down the plan" in talks[-1]
    assert all("Corridor one: the lamp is left" in prompt and "Walk to the lamp." in prompt for prompt in talks)
    assert [prompt.count("Player: ") + prompt.count("Coach: ") for prompt in talks] == [0, 1, 2, 3, 4]
    assert "Player: I wait." in talks[1] and "Player: I listen." in talks[3]
    run.close()
    resumed, silent = Run(tmp_path, quiet=True), ScriptedModel([])
    use_model(resumed, silent, POLICY)
    assert talked_over(POLICY, TASKS[:1], resumed, exchanges=2) == hints and silent.calls == []


def test_a_talk_that_fails_gives_no_hint(tmp_path):
    run, _ = scripted(tmp_path, lambda *_: "")
    unopened = TASKS[1].model_copy(update={"env": "worlds:Unopened"})
    assert talked_over(POLICY, [TASKS[0], unopened], run) == {}


def test_self_talk_trains_on_what_the_talk_made_possible_without_the_talk(house):
    home = house(talking)
    policy = self_talk(home.policy, TASKS, home.run, samples=1, lora=QUICK)
    hint = "The plan that you and your coach have made: PLAN: right, right"
    assert {one.hint for one in home.run.trajectories.values()} == {hint}
    rows = home.rows(policy)
    assert sorted(source for row in rows for source in row.sources) == sorted(f"1/acquire/{task.id}/0" for task in TASKS)
    said = json.dumps([row.model_dump(mode="json") for row in rows])
    assert "PLAN" not in said and "coach" not in said and "the lamp is" in said
    alone = house(lambda messages, choices: talking(messages, choices) if len(messages) > 1 else "")
    assert self_talk(alone.policy, TASKS, alone.run, samples=1, lora=QUICK) == alone.policy  # nothing was solved
