"""Tasks that a model makes: what it is shown, what of its answers is taken, and that the methods learn from them."""

import json

import pytest
from worlds import Corridor, lamp, make_tasks, new_run, use_model, walker

from agentevolve.acquire import grown, mutate, propose, validated
from agentevolve.load import check_settings, load_task_set, manual, tasks_of
from agentevolve.methods.evol_instruct import evol_instruct
from agentevolve.methods.self_instruct import self_instruct
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError
from agentevolve.run.folder import Run, identity

TASKS = make_tasks(4, length=3, limit=4)
POLICY = Policy(model="scripted")
QUICK = {"samples": 1, "lora": {"rank": 2, "alpha": 4, "epochs": 1}}
opened: list[str] = []


def check(data):
    """What this module's corridors take: it stumbles over a list, which nothing can be looked up by."""
    assert data.get("mood", "dark") in {"dark"}


class Watched(Corridor):
    """A corridor that says when its solution is asked for."""

    def oracle(self, task):
        opened.append(task.id)
        return super().oracle(task)


class Unsolved(Corridor):
    """A corridor of which nobody knows a solution, and that cannot be three cells long."""

    def reset(self, task):
        if task.data["length"] == 3:
            raise OSError("no such corridor")
        return super().reset(task)

    def oracle(self, task):
        raise NotImplementedError


def scripted(folder, script) -> tuple[Run, ScriptedModel]:
    run, model = new_run(folder), ScriptedModel(script)
    use_model(run, model, POLICY)
    return run, model


def child(task, **data):
    return task.model_copy(update={"id": f"{task.id}+{len(data)}{sorted(data.items())}", "data": task.data | data})


def asked(model) -> list[str]:
    return [messages[-1].content for messages, _ in model.calls]


def test_a_proposal_shows_eight_tasks_what_the_world_is_and_what_to_practise(tmp_path):
    tasks = [task.model_copy(update={"data": {"length": n}}) for n, task in enumerate(make_tasks(10))]
    run, model = scripted(tmp_path, ['{"length": 5}', '{"length": 5}'])
    propose(POLICY, tasks, run, 2, knowledge=manual("worlds:Corridor"), objective="Long walks.")
    for prompt in asked(model):
        assert sum(f'{{"length": {n}}}' in prompt for n in range(10)) == 8
        assert "A row of cells with a lamp at one end" in prompt and "practised next: Long walks." in prompt
    assert len(set(asked(model))) == 2  # drawn anew each time
    run, model = scripted(tmp_path / "free", ['{"length": 5}'])
    propose(POLICY, TASKS, run, 1)
    assert "A row of cells" not in asked(model)[0] and "practised next" not in asked(model)[0]
    assert asked(model)[0].count('{"length": 3, "limit": 4}') == 1  # what all tasks share is shown once


def test_a_proposal_keeps_its_parents_seed_and_whatever_it_leaves_out(tmp_path):
    run, _ = scripted(tmp_path, ['Here you are:\n```json\n{"length": 2}\n```\nor {"length": 9'])
    (new,) = propose(POLICY, TASKS, run, 1)
    parent = next(task for task in TASKS if new.id.startswith(f"{task.id}+"))
    assert new.data == {"length": 2, "limit": 4}
    assert (new.seed, new.env, new.split) == (parent.seed, parent.env, "train")
    again, silent = scripted(tmp_path / "again", ['{"limit": 4, "length": 2}'])
    assert propose(POLICY, TASKS, again, 1) == [new]
    run.close()
    resumed, silent = Run(tmp_path, quiet=True), ScriptedModel([])
    use_model(resumed, silent, POLICY)
    assert propose(POLICY, TASKS, resumed, 1) == [new] and silent.calls == []


@pytest.mark.parametrize(
    "said", ["", "a longer walk", "[5]", '{"length": 5', "{length: 5}", '{"length": NaN}', "{" * 9000 + "}" * 9000]
)
def test_an_answer_that_is_no_settings_is_dropped(tmp_path, said):
    run, _ = scripted(tmp_path, [said])
    assert propose(POLICY, TASKS, run, 1) == []


def test_only_new_solvable_tasks_are_practised(tmp_path):
    run, known = new_run(tmp_path), TASKS[:2]
    good = child(known[0], length=2)
    run.held_out = frozenset({identity(child(known[1], length=1))})
    refused = {
        "known": child(known[0]),
        "held out": child(known[1], length=1),
        "twice": good.model_copy(update={"id": "another"}),
        "unsolvable": child(known[0], length=5),
        "the same with more turns": child(known[0], limit=8),
        "no settings of this world": child(known[0], length="far"),
    }
    assert validated([good, *refused.values()], known, run) == [good]
    run.held_out = frozenset()
    assert validated([refused["held out"]], known, run) == [refused["held out"]]
    assert validated([child(known[0], length=5, limit=6)], known, run) != []


def test_settings_that_name_files_or_ask_for_huge_worlds_are_refused_before_anything_is_opened(tmp_path):
    run, known = new_run(tmp_path), make_tasks(1, length=6, limit=12, log="known.txt", pause=0.0)
    harmful = [
        child(known[0], length=2, log=str(tmp_path / "written.txt")),
        child(known[0], length=2, log="os:getcwd"),
        child(known[0], length=2, other=known[0].data["log"]),
        child(known[0], length=2, limit=25),
        child(known[0], length=-13),
        child(known[0], length=2, pause=1e999),
        child(known[0], length=2, more={"deeply": [11]}),
        child(known[0], length=2, more=[1] * 101),
    ]
    assert validated(harmful, known, run) == [] and not run.facts
    harmless = child(make_tasks(1, length=6, limit=12)[0], length=5, limit=24, mood="quite dark", flag=True, more=[10])
    assert validated([harmless], make_tasks(1, length=6, limit=12), run) == [harmless]


def test_where_no_solution_is_known_a_task_has_to_start(tmp_path):
    (known,) = make_tasks(1, env="Corridor", length=2)
    known = known.model_copy(update={"env": f"{__name__}:Unsolved"})
    candidates = [child(known, length=3), child(known, length=2, limit=3), child(known, length=4)]
    assert validated(candidates, [known], new_run(tmp_path)) == []  # the last two start like the known one
    other = known.model_copy(update={"id": "other", "seed": 1})
    unlike = candidates[2].model_copy(update={"prompt": "Mind the step."})
    assert validated([candidates[0], unlike], [known, other], new_run(tmp_path / "b")) == [unlike]
    unopened = child(known.model_copy(update={"env": "worlds:Unopened"}), length=1)
    assert validated([unopened], [known], new_run(tmp_path / "c")) == []


def test_a_world_s_solution_is_asked_for_once_a_run_over_processes(tmp_path):
    opened.clear()
    (known,) = make_tasks(1, length=3)
    known = known.model_copy(update={"env": f"{__name__}:Watched"})
    new = child(known, length=2)
    for _ in range(2):
        run = new_run(tmp_path)
        assert validated([new], [known], run) == [new]
        run.close()
        assert sorted(opened) == sorted([known.id, new.id])
    assert len(opened) == 2
    moods = [child(known, length=2, limit=9, mood=mood) for mood in ("bright", ["dark"], {"dark": 1})]
    assert validated(moods, [known], new_run(tmp_path / "b")) == [] and len(opened) == 2


@pytest.mark.parametrize("make", [propose, mutate, validated])
def test_nothing_is_made_from_held_out_tasks(tmp_path, make):
    run, model = scripted(tmp_path, [])
    held = make_tasks(1, split="val", length=2)
    given = {propose: (POLICY, held, run, 1), mutate: (POLICY, held, run), validated: (held, TASKS, run)}
    with pytest.raises(ValueError, match="held-out tasks may not be practised: corridor/val/100"):
        make(*given[make])
    assert model.calls == []


def test_a_mutation_is_one_change_that_the_world_takes(tmp_path):
    tasks = tasks_of(load_task_set("coin"), "train", 30)
    run, model = scripted(tmp_path, lambda messages, choices: f"I would say {choices[0]}.")
    made = mutate(POLICY, tasks, run)
    assert len(made) == 30
    for (messages, choices), task, new in zip(model.calls, tasks, made, strict=True):
        broad = "unlike it" in messages[-1].content
        numbers = ["limit: 6", "limit: 24"] if broad else ["limit: 11", "limit: 13"]
        rooms = (
            ["params.numLocations: 2", "params.numLocations: 10"]
            if broad
            else ["params.numLocations: 4", "params.numLocations: 6"]
        )
        flags = [] if broad else ["params.includeDoors: 1", "params.limitInventorySize: 1", "params.numDistractorItems: 1"]
        assert sorted(choices) == sorted(numbers + rooms + flags)  # and no -1 doors: the world's check refuses them
        name, value = choices[0].removeprefix("params.").split(": ")
        flat, before = new.data | new.data["params"], task.data | task.data["params"]
        assert [one for one in flat if one != "params" and flat[one] != before[one]] == [name] and flat[name] == int(value)
    ways = ["unlike it" in prompt for prompt in asked(model)]
    assert 0 < sum(ways) < 15  # one of five in the mean
    assert len({prompt.splitlines()[3] for prompt in asked(model)}) == 5


def test_a_mutation_never_leaves_what_the_world_takes(tmp_path):
    (task,) = tasks_of(load_task_set("coin"), "train", 1)
    brim = {"game": "coin", "params": {"numLocations": 11, "includeDoors": 1, "numDistractorItems": 10}, "limit": 1}
    tasks = [task.model_copy(update={"id": f"coin/train/{n}", "data": brim}) for n in range(9)]
    run, model = scripted(tmp_path, lambda messages, choices: choices[0])
    made = mutate(POLICY, tasks, run)
    near = {"limit: 2", "params.numLocations: 10", "params.includeDoors: 0", "params.numDistractorItems: 9"}
    far = {"limit: 2", "params.numLocations: 5", "params.includeDoors: 0", "params.numDistractorItems: 5"}
    assert {frozenset(choices) for _, choices in model.calls} == {frozenset(near), frozenset(far)}
    for new in made:
        check_settings(new.env, new.data)


def test_a_mutation_that_the_model_does_not_name_is_left_out(tmp_path):
    run, _ = scripted(tmp_path, lambda messages, choices: "harder" if "4" in choices[0] else choices[0])
    made = mutate(POLICY, [*make_tasks(2, length=3), *make_tasks(1, log="x.txt")], run)
    answers = [fact["text"] for name, fact in run.facts.items() if "mutate" in name]
    assert len(made) == sum(answer != "harder" for answer in answers) and len(answers) == 2


def test_a_real_world_s_tasks_are_checked_and_solved(tmp_path):
    known = tasks_of(load_task_set("coin"), "train", 1)

    def coin(**params):
        data = known[0].data | {"params": known[0].data["params"] | params}
        return known[0].model_copy(update={"id": f"{known[0].id}+{params}", "data": data})

    good = coin(numLocations=7)
    refused = [
        coin(numLocations=12),
        coin(windows=1),
        known[0].model_copy(update={"data": known[0].data | {"game": "chess"}}),
        known[0].model_copy(update={"data": known[0].data | {"limit": 13}}),
    ]
    assert validated([*refused, good], known, new_run(tmp_path)) == [good]
    with pytest.raises(AgentevolveError):
        check_settings("textworld_express", refused[0].data)
    assert "Actions" in manual("textworld_express") and "20000" not in manual("textworld_express")


def proposing(messages, choices):
    """Proposes a shorter walk for each that it sees, and walks."""
    if "Write the settings of one new task" not in messages[-1].content:
        return walker(messages, choices)
    shown = [json.loads(line) for line in messages[-1].content.splitlines() if line.startswith("{")]
    return json.dumps({"length": min(one["length"] for one in shown) - 1})


def tried(run, number) -> set[str]:
    return {one.task.id for one in run.acquired(number)}


def test_self_instruct_learns_from_given_and_new_tasks_and_goes_on_from_these(house):
    home = house(proposing)
    policy = self_instruct(home.policy, TASKS[:1], home.run, new=3, feeding=QUICK)
    (new,) = tried(home.run, 1) - {TASKS[0].id}  # three proposals of one and the same world
    assert home.run.trajectories[f"1/acquire/{new}/0"].task.data == {"length": 2, "limit": 4}
    assert grown(TASKS[:1], home.run) == TASKS[:1]  # what this round made is not there yet: a killed round begins as it did
    assert {source for row in home.rows(policy) for source in row.sources} == {f"1/acquire/{id}/0" for id in (TASKS[0].id, new)}
    home.run.round = 2
    assert [task.id for task in grown(TASKS[:1], home.run)] == [TASKS[0].id, new]
    self_instruct(home.policy, TASKS[:1], home.run, new=2, feeding=QUICK)
    last = [prompt for prompt in asked(home.model) if "Write the settings" in prompt][-1]
    assert '"length": 3' in last and '"length": 2' in last
    assert len(tried(home.run, 2)) == 3 and {TASKS[0].id, new} < tried(home.run, 2)


def test_self_instruct_feeds_the_method_that_is_named_and_refuses_an_unknown_one_before_it_asks(house):
    home = house(proposing)
    policy = self_instruct(home.policy, TASKS[:2], home.run, new=2, feeds="memento", feeding={"nearest": 7})
    assert policy.recall.nearest == {"case": 7} and policy.adapter is None
    assert len(tried(home.run, 1)) > 2
    other = house(proposing)
    with pytest.raises(AgentevolveError, match="unknown key neerest"):
        self_instruct(other.policy, TASKS[:2], other.run, feeds="memento", feeding={"neerest": 7})
    assert other.model.calls == []


def test_evol_instruct_changes_what_is_solved_half_the_time_and_drops_what_cannot_be_solved(house):
    def changing(messages, choices):
        if "Which one change" in messages[-1].content:
            return next(choice for choice in choices if choice.startswith("length: ") and choice in ("length: 2", "length: 1"))
        return walker(messages, choices) if "left" in messages[-1].content else "wait"

    tasks = [task.model_copy(update={"data": {"length": 2 + (lamp(task) == "right"), "limit": 4}}) for task in TASKS]
    home = house(changing)
    evol_instruct(home.policy, tasks, home.run, new=0, feeding=QUICK | {"samples": 2})
    assert tried(home.run, 1) == {task.id for task in tasks} and "Which one change" not in "".join(asked(home.model))
    home.run.round = 2
    evol_instruct(home.policy, tasks, home.run, new=4, feeding=QUICK)
    new = tried(home.run, 2) - {task.id for task in tasks}
    assert len(new) == 4 and all(home.run.trajectories[f"2/acquire/{id}/0"].task.data["length"] < 3 for id in new)
    longer = house(lambda messages, choices: "limit: 3" if "Which" in messages[-1].content else "wait")
    evol_instruct(longer.policy, TASKS, longer.run, new=4, feeding=QUICK)
    assert tried(longer.run, 1) == {task.id for task in TASKS}  # fewer turns are no other world


def test_evol_instruct_selects_by_the_attempts_of_earlier_rounds(house):
    def half(messages, choices):
        if "Which one change" in messages[-1].content:
            return "length: 2"
        if "Corridor two" in messages[-1].content and len(messages) == 2:
            half.calls += 1
            half.lost = half.calls % 2
        lost = "Corridor two" in messages[-1].content and half.lost
        return "wait" if lost else walker(messages, choices)

    half.calls, half.lost = 0, 0
    home = house(half)
    evol_instruct(home.policy, TASKS, home.run, new=0, feeding=QUICK | {"samples": 2})
    home.run.round = 2
    evol_instruct(home.policy, TASKS, home.run, new=1, feeding=QUICK)
    assert [name for name in home.run.facts if "mutate" in name] == [f"ask/mutate/2/{TASKS[1].id}"]
