"""Methods that change what is shown: who sees which entries, and where these come from."""

from worlds import lamp, make_tasks, walker

from agentevolve.act.rollout import rollout
from agentevolve.memory import read_entries
from agentevolve.methods.expel import expel
from agentevolve.methods.memento import memento
from agentevolve.methods.reasoning_bank import reasoning_bank
from agentevolve.methods.reflexion import reflexion
from agentevolve.methods.self_refine import self_refine
from agentevolve.methods.workflow_memory import workflow_memory

TASKS = make_tasks(4, length=2, limit=3)


def entries(home, kind):
    return read_entries(home.run.folder / "memory", kind=kind)


def test_reflexion_s_next_attempt_sees_the_last_three_reflections_on_its_task_and_no_others(house):
    def stubborn(messages, choices):
        asked = messages[-1].content
        if "This game was lost" in asked:
            return f"LESSON {sum('This game was lost' in call[0][-1].content for call in home.model.calls)}"
        return "wait"

    home = house(stubborn)
    policy = reflexion(home.policy, TASKS[:2], home.run, trials=5)
    lessons = {task.id: [one.text for one in entries(home, "reflection") if one.task == task.id] for task in TASKS[:2]}
    assert [len(found) for found in lessons.values()] == [5, 5]
    for trial in range(1, 6):
        shown = home.seen(f"1/acquire/trial-{trial}")
        for task, context in zip(TASKS[:2], shown, strict=True):
            told = lessons[task.id][max(0, trial - 4) : trial - 1]
            assert [lesson for found in lessons.values() for lesson in found if f"{lesson}\n" in context] == told
    assert policy.recall.own == {"reflection": 3} and policy.recall.nearest == {"reflection": 0}


def test_reflexion_leaves_a_solved_task_alone(house):
    home = house(lambda messages, choices: "Next time." if "This game was lost" in messages[-1].content else left(messages))
    reflexion(home.policy, TASKS, home.run, trials=3)
    tried = [one.task.id for one in home.run.trajectories.values()]
    assert {task.id: tried.count(task.id) for task in TASKS} == {task.id: 1 if lamp(task) == "left" else 3 for task in TASKS}


def left(messages) -> str:
    return "left" if "lamp is left" in messages[-1].content else "wait"


def test_expel_s_rules_are_edited_by_contrasts_and_successes_and_all_shown(house):
    edits = iter(["ADD: Look for the lamp.", "AGREE 1:\nADD: Walk on.", "REMOVE 2:\nREMOVE 2:"])

    def gathering(messages, choices):
        asked = messages[-1].content
        if "Edit the list of rules" in asked:
            prompts.append(asked)
            return next(edits, "")
        if "This game was lost" in asked:
            return "Walk to the right."
        told = any("Walk to the right." in message.content for message in messages)
        return walker(messages, choices) if told else left(messages)

    prompts: list[str] = []
    home = house(gathering)
    policy = expel(home.policy, TASKS, home.run, trials=2, batch=8)
    assert len(prompts) == 3  # two contrasts of a lost and a won attempt, one batch of four successes
    assert [prompt.count("An attempt that failed") for prompt in prompts] == [1, 1, 0]
    assert [prompt.count("An attempt that succeeded") for prompt in prompts] == [1, 1, 4]
    (rule,) = [one for one in entries(home, "insight")]
    assert (rule.text, rule.counts["votes"]) == ("Look for the lamp.", 3)
    rollout(policy, make_tasks(1, split="val", length=2), home.run, phase="look")
    (context,) = home.seen("look")
    assert "Look for the lamp." in context and context.count("That game was won.") == 2
    assert "Walk on." not in context and "Walk to the right." not in context


def test_a_killed_round_of_expel_is_run_again_from_the_rules_that_it_found(house):
    edits = iter(["ADD: Look.", "EDIT 1: Look for the lamp.", "ADD: Walk on."])
    home = house(lambda messages, choices: next(edits, "") if "Edit the list" in messages[-1].content else left(messages))
    policy = expel(home.policy, make_tasks(6, length=2, limit=3), home.run, trials=1, batch=1)
    said, rules = dict(home.run.facts), entries(home, "insight")
    assert {one.text: one.counts["votes"] for one in rules} == {"Look for the lamp.": 3, "Walk on.": 2}
    assert expel(home.policy, make_tasks(6, length=2, limit=3), home.run, trials=1, batch=1) == policy
    assert (home.run.facts, entries(home, "insight")) == (said, rules)


def test_memento_keeps_what_was_lost_as_well_and_says_so(house):
    home = house(lambda messages, choices: left(messages))
    policy = memento(home.policy, TASKS, home.run, nearest=4)
    assert sorted(one.reward for one in entries(home, "case")) == [0.0, 0.0, 1.0, 1.0]
    rollout(policy.using(recall=policy.recall.model_copy(update={"tokens": 5000})), TASKS[:1], home.run, phase="look")
    (context,) = home.seen("look")
    assert context.count("That game was won.") == 2 and context.count("That game was lost.") == 2


def judging(messages, choices) -> str:
    """Acts as `left` does, praises what ended at the left, and draws one thing from every attempt."""
    asked = messages[-1].content
    if "How well was the task done?" in asked:
        return "5" if "lamp is left" in asked else "0"
    if "Write down the way of working" in asked or "What can be learnt" in asked:
        return f"- THING of {'a success' if 'succeeded' in asked else 'a failure' if 'failed' in asked else 'a way'}"
    return left(messages)


def test_workflows_are_drawn_from_judged_successes_alone(house):
    home = house(judging)
    policy = workflow_memory(home.policy, TASKS, home.run)
    assert {source for one in entries(home, "workflow") for source in one.sources} == {
        f"1/acquire/{task.id}/0" for task in TASKS if lamp(task) == "left"
    }
    assert policy.recall.nearest == {"workflow": 3}


def test_reasoning_items_are_drawn_from_failures_too_as_the_judge_sees_them(house):
    home = house(judging)
    reasoning_bank(home.policy, TASKS, home.run)
    assert sorted(one.text for one in entries(home, "insight")) == ["THING of a failure", "THING of a success"]  # each once
    assert [len(one.sources) for one in entries(home, "insight")] == [2, 2]


def test_self_refine_tries_again_with_its_own_criticism_until_it_is_pleased(house):
    def refining(messages, choices):
        asked = messages[-1].content
        if "How well was the task done?" in asked:
            return "5" if "> wait" not in asked else "1"
        if "What was wrong with it" in asked:
            return "Do not wait, walk."
        told = any("What was wrong with the last attempt: Do not wait, walk." in message.content for message in messages)
        return walker(messages, choices) if told else left(messages)

    home = house(refining)
    self_refine(home.policy, TASKS, home.run, tries=4)
    tries = [(one.phase, one.task.id, bool(one.hint)) for one in home.run.trajectories.values()]
    failed = [task.id for task in TASKS if lamp(task) == "right"]
    assert sorted(tries) == sorted(
        [("1/acquire/try-1", task.id, False) for task in TASKS] + [("1/acquire/try-2", id, True) for id in failed]
    )
    assert {one.task for one in entries(home, "demo")} == {task.id for task in TASKS}
