"""Comparing methods over a corridor: equal budgets, borrowed attempts, controls, resuming, and being killed at any moment."""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Sequence

import pytest
import yaml
from worlds import Metered, learner, new_run, task_file, use_model

from agentevolve.act.rollout import rollout
from agentevolve.cli.compare import compared
from agentevolve.config import Comparison, Entrant, read_comparison
from agentevolve.evaluate import caveats, standings
from agentevolve.loop import compare as comparing
from agentevolve.loop.compare import CONTROLS, UNFIT, _learn, _one_round, compare, exercise
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError, BudgetExceeded
from agentevolve.records import Task, Usage
from agentevolve.refine import demos
from agentevolve.run.budget import Allowance
from agentevolve.run.folder import JOURNAL, Run, read_run, same
from agentevolve.update import remember

METHODS = [
    {"method": "agentevolve", "settings": {"rows": 0, "reflections": 0, "samples": 3, "epsilon": [1.0]}},
    "test_compare:patient",
    {"method": "test_compare:patient", "label": "patient-2", "settings": {"samples": 2}},
]


def patient(policy: Policy, tasks: Sequence[Task], run: Run, *, samples: int = 1) -> Policy:
    """Somebody else's method: attempts, and demos of what succeeded, recalled by chance of nearness to nothing."""
    attempts = rollout(policy, tasks, run, phase=f"{run.round}/acquire", samples=samples)
    return remember(policy, demos(attempts, run.round), run).using(
        recall=policy.recall.model_copy(update={"whole": ("demo",), "nearest": {}})
    )


def made(path, **changes) -> Comparison:
    """A small comparison that needs neither weights nor an index: demos are shown whole."""
    values = {
        "tasks": str(path),
        "model": "random",
        "workers": 3,
        "methods": METHODS[1:],
        "rounds": 2,
        "seeds": [0, 1],
        "train": {"tasks": 4},
        "held": {"tasks": 5, "samples": 2},
        "budget": {"episodes": 100},
        "recall": {"nearest": {}},
    }
    return Comparison.model_validate(values | changes)


@pytest.fixture(autouse=True)
def found_here(monkeypatch):
    """`test_compare:patient` names this very module, whichever way pytest has imported it."""
    monkeypatch.setitem(sys.modules, "test_compare", sys.modules[__name__])


def test_each_method_is_measured_against_no_learning_on_the_same_tasks_and_seeds(tmp_path):
    found = compare(made(task_file(tmp_path, length=2)), tmp_path / "out", quiet=True)
    assert [(one.seed, one.method) for one in found] == [(s, m) for s in (0, 1) for m in (CONTROLS, "patient", "patient-2")]
    keys = {tuple((one.task.id, one.sample, one.seed) for one in learnt.arm(arm)) for learnt in found[1:3] for arm in ("learnt",)}
    assert keys == {tuple((one.task.id, one.sample, one.seed) for one in found[0].arm("no learning"))}
    rows = standings(found, 2)
    assert [row.method for row in rows] == ["no learning", "random", "oracle", "patient", "patient-2"]
    assert [(row.n, row.rounds) for row in rows[3:]] == [(20, (2, 2))] * 2
    assert rows[2].success == rows[2].pass_all == 1.0
    assert [len(row.curve) for row in rows[3:]] == [3, 3]
    assert [point.episodes for point in rows[4].curve] == [0, 8, 16]


def test_train_tasks_are_the_same_for_all_methods_of_a_seed_and_none_is_held_out(tmp_path):
    config = made(task_file(tmp_path, length=2))
    compare(config, tmp_path / "out", quiet=True)
    for seed in (0, 1):
        practised = set()
        for method in ("patient", "patient-2"):
            run = read_run(tmp_path / "out" / "corridor" / f"seed-{seed}" / method)
            practised.add(frozenset(one.task.id for one in run.acquired(1, 2)))
            assert {one.task.split for one in run.acquired(1, 2)} == {"train"}
        assert practised == {frozenset(task.id for task in exercise(config, config.tasks[0], seed).train)}


def test_a_round_that_does_not_fit_the_attempts_is_not_counted(tmp_path):
    found = compare(made(task_file(tmp_path, length=2), seeds=[0], budget={"episodes": 9}), tmp_path / "out", quiet=True)
    rounds = {one.method: [episodes for episodes, _ in one.rounds] for one in found}
    assert rounds == {CONTROLS: [], "patient": [4, 8], "patient-2": [8]}
    run = read_run(tmp_path / "out" / "corridor" / "seed-0" / "patient-2")
    assert len(run.acquired(1, 2)) == 9
    assert run.facts["round 2"] == {"unfit": UNFIT}
    rows = standings(compare(made(task_file(tmp_path, length=2), budget={"episodes": 3}), tmp_path / "less", quiet=True), 2)
    assert [row.verdict for row in rows[3:]] == ["nothing learnt"] * 2
    assert {row.success for row in rows[3:]} == {rows[0].success}
    assert any("Not one round fitted the budget" in line and "patient, patient-2" in line for line in caveats(rows, "random"))


@pytest.mark.parametrize("workers", [1, 3])
def test_tokens_pass_the_allowance_by_one_call_a_worker_at_most(tmp_path, workers):
    run = new_run(tmp_path / "run", workers=workers)
    use_model(
        run, Metered(run, ScriptedModel(lambda messages, choices: "wait"), lambda: time.sleep(0.002)), Policy(model="random")
    )
    config = made(task_file(tmp_path, length=2, limit=4), workers=workers, budget={"tokens": 215}, rounds=50)
    _learn(config, Entrant(method="test_compare:patient"), exercise(config, config.tasks[0], 0), run)
    run.close()
    spent = run.learning()[1].tokens
    assert 215 <= spent < 215 + 10 * workers
    assert run.facts["round 2"]["unfit"] == UNFIT
    assert run.facts["round 1"]["usage"]["prompt_tokens"] == 4 * 4 * 9


def test_what_is_measured_does_not_count(tmp_path):
    run = new_run(tmp_path / "run", workers=1)
    use_model(run, Metered(run, ScriptedModel(learner)), Policy(model="random"))
    config = made(task_file(tmp_path, length=2, limit=4), workers=1, budget={"tokens": 1000}, held={"tasks": 40})
    arms = _learn(config, Entrant(method="test_compare:patient"), exercise(config, config.tasks[0], 0), run)
    run.close()
    assert run.costs()["evaluate"].tokens > 1000
    assert run.costs()["acquire"].tokens < 1000
    assert [(arm.name, arm.when, len(arm.attempts)) for arm in arms] == [("learnt", "1", 40), ("learnt", "2", 40)]


def test_whether_a_round_fits_depends_on_its_whole_cost_alone(tmp_path):
    run = Run(tmp_path / "run", quiet=True)
    for number, (cost, raised, kept) in enumerate([(10, False, True), (11, False, False), (5, True, False)], 1):
        allowance = Allowance(10)

        def learn(cost=cost, raised=raised, allowance=allowance):
            allowance.book(Usage(prompt_tokens=cost))
            if raised:
                raise BudgetExceeded("spent")
            return Policy(model="random")

        run.round = number
        assert (_one_round(learn, run, allowance) is not None) is kept


def test_an_attempt_that_another_method_has_paid_for_is_borrowed_and_charged(tmp_path):
    log = tmp_path / "log"
    config = made(task_file(tmp_path, length=2, log=str(log)), seeds=[0], rounds=1, budget={"tokens": 10**6})
    found = compare(config, tmp_path / "out", quiet=True)
    played = log.read_text().splitlines()
    # the three controls; patient's 4, to which patient-2 adds its second attempts only; two learnt arms
    assert len(played) == 3 * 10 + 4 + 4 + 2 * 10
    one, two = (read_run(tmp_path / "out" / "corridor" / "seed-0" / name) for name in ("patient", "patient-2"))
    assert {id: gone.reward for id, gone in one.trajectories.items() if "acquire" in id}.items() <= {
        id: gone.reward for id, gone in two.trajectories.items()
    }.items()
    assert [len(found[n].rounds) for n in (1, 2)] == [1, 1]
    shared = same(*(getattr(next(iter(one.trajectories.values())), name) for name in ("task", "seed", "hint", "policy")))
    two.borrow(one)
    assert shared in two.lent


def test_an_answer_that_another_method_has_paid_for_is_borrowed_and_charged(tmp_path):
    from agentevolve.act.asking import ask

    first, second = new_run(tmp_path / "a"), new_run(tmp_path / "b")
    policy = Policy(model="random")
    use_model(first, Metered(first, ScriptedModel(lambda messages, choices: "yes")), policy)
    use_model(second, Metered(second, ScriptedModel(lambda messages, choices: "no")), policy)
    assert ask(policy, first, "q", "Is it?") == "yes"
    second.borrow(first)
    second.budget = Allowance(15)
    assert ask(policy, second, "q", "Is it?") == "yes"
    assert second.budget.spent.tokens == 10
    assert second.costs()["refine"].tokens == 10
    assert ask(policy, second, "q2", "Is it really?") == "no"
    with pytest.raises(BudgetExceeded):
        ask(policy, second, "q3", "Is it really, really?")


def test_resuming_a_finished_comparison_does_nothing_and_writes_the_same_files(tmp_path):
    config, out = made(task_file(tmp_path, length=2)), tmp_path / "out"
    first = compared(config, out, False, True)
    before = {path: path.read_bytes() for path in [*first.files, *out.rglob(JOURNAL)]}
    again = compared(config, out, True, True)
    assert {path: path.read_bytes() for path in before} == before
    assert again.rows == first.rows
    assert [path.name for path in first.files] == ["table.md", "results.csv", "results.json", "curves.png"]
    values = json.loads((out / "results.json").read_text())
    assert [row["method"] for row in values["standings"]][3:] == ["patient", "patient-2"]
    assert (out / "results.csv").read_text().count("\n") == 6
    assert "## What cannot be concluded" in (out / "table.md").read_text()


def test_a_method_can_be_added_to_a_comparison_and_nothing_else_is_made_again(tmp_path):
    path, out, log = task_file(tmp_path, length=2, log=str(tmp_path / "log")), tmp_path / "out", tmp_path / "log"
    compare(made(path, methods=METHODS[1:2]), out, quiet=True)
    played = len(log.read_text().splitlines())
    compare(made(path), out, resume=True, quiet=True)
    assert {line for line in log.read_text().splitlines()[played:] if "train" in line}
    with pytest.raises(AgentevolveError, match="only methods, seeds and tasks may change"):
        compare(made(path, held={"tasks": 6}), out, resume=True)
    with pytest.raises(AgentevolveError, match="go on with --resume"):
        compare(made(path), out)
    with pytest.raises(AgentevolveError, match="holds a run of another method"):
        compare(
            made(path, methods=[{"method": "test_compare:patient", "settings": {"samples": 3}}]), out, resume=True, quiet=True
        )


def played_and_killed(values, out):
    sys.modules["test_compare"] = sys.modules[__name__]
    compared(Comparison.model_validate(values), out, (out / comparing.CONFIG).exists(), True)


def table(out) -> list[object]:
    """The standings without what hangs on the clock: seconds."""
    rows = json.loads((out / "results.json").read_text())["standings"]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_killed_at_any_moment_and_resumed_it_gives_the_same_table(tmp_path):
    context = multiprocessing.get_context("fork")
    path = task_file(tmp_path, length=2, pause=0.002)
    values = made(path, methods=METHODS, budget={"episodes": 22}).model_dump(mode="json")
    began = time.monotonic()
    played_and_killed(values, tmp_path / "whole")
    whole = time.monotonic() - began
    luck, killed = random.Random(0), 0
    for _ in range(40):
        process = context.Process(target=played_and_killed, args=(values, tmp_path / "cut"))
        process.start()
        process.join(luck.uniform(0.05, 0.35) * whole)
        if process.exitcode is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed += 1
    else:
        played_and_killed(values, tmp_path / "cut")
    assert process.exitcode in (0, -signal.SIGKILL)
    assert killed >= 3
    assert table(tmp_path / "cut") == table(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": ["rest_em", "rest_em"]}, "methods: two are called rest_em; give one a label"),
        ({"methods": []}, "methods: List should have at least 1 item"),
        ({"budget": {}}, "budget: name at least one of episodes, tokens, usd"),
        ({"budget": {"dollars": 1}}, "unknown key budget.dollars; known: episodes, tokens, usd"),
        ({"methods": [{"method": "rft", "label": "a/b"}]}, "methods.0.label: String should match"),
        ({"methods": [{"name": "rft"}]}, "unknown key methods.0.name; known: method, settings, label"),
        ({"tasks": ["coin", "coin"]}, "tasks: each task set may be there once"),
    ],
)
def test_a_bad_comparison_is_one_line_that_names_the_field(tmp_path, changes, said):
    values = made(task_file(tmp_path)).model_dump(mode="json") | changes
    if changes == {"methods": [{"name": "rft"}]}:
        values["methods"] = [{"method": "rft", "name": "rft"}]
    path = tmp_path / "comparison.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(AgentevolveError) as error:
        read_comparison(path)
    assert str(error.value).startswith(f"{path}: {said}")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": ["rest_em"]}, "'rest_em' fine-tunes, but 'random' is not a local model"),
        ({"methods": ["self_instruct"]}, "'rest_em' fine-tunes"),
        (
            {"methods": [{"method": "self_instruct", "settings": {"feeds": "evol_instruct"}}]},
            "'self_instruct' cannot feed 'evol_instruct'",
        ),
        ({"methods": ["nobody"]}, "unknown method 'nobody'"),
        ({"methods": [{"method": "memento", "label": "controls"}]}, "give the method a label"),
        ({"tasks": ["nowhere"]}, "unknown task set 'nowhere'"),
        ({"held": {"tasks": 0}}, "held.tasks is 0"),
        ({"model": "nobody/nothing"}, "unknown model"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_written(tmp_path, changes, said):
    with pytest.raises(AgentevolveError, match=said):
        compare(made(task_file(tmp_path), **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_method_named_on_the_command_line_is_compared_besides_the_file_s(tmp_path):
    path = tmp_path / "comparison.yaml"
    path.write_text(yaml.safe_dump(made(task_file(tmp_path), methods=["memento"]).model_dump(mode="json")))
    named = read_comparison(path, ["seeds=[5]"], ["test_compare:patient"])
    assert [entrant.name for entrant in named.methods] == ["memento", "patient"]
    assert named.seeds == [5]
