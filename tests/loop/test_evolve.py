"""The round loop over a corridor: the gate, what is held out, resuming, and being killed at any moment."""

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from worlds import gist, learner, make_tasks, new_run, task_file, use_model, walker

from agentevolve.config import Config
from agentevolve.loop.course import course, in_place
from agentevolve.loop.evolve import check, check_method, evolve, evolve_one, held_out
from agentevolve.loop.policies import take_back, taken_back
from agentevolve.memory import HashEmbedder, open_memory, read_entries, read_ledger
from agentevolve.memory.index import Index, collection_name
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.policy import Policy
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry
from agentevolve.run.folder import JOURNAL, Run, read_run

WORKERS = 3


def made(path: Path, **changes) -> Config:
    """A small evolution that needs no weights: corridors of two steps, memory only."""
    values = {
        "tasks": str(path),
        "model": "random",
        "workers": WORKERS,
        "settings": {"samples": 3, "epsilon": [1.0], "reflections": 0, "rows": 0},
        "train": {"tasks": 6},
        "val": {"tasks": 6},
        "test": {"tasks": 5},
        "arms": ["base", "memory"],
    }
    return Config.model_validate(values | changes)


def scripted(run: Run, script) -> Run:
    use_model(run, ScriptedModel(script), Policy(model="random"))
    return run


def kinds(folder: Path) -> list[str]:
    """The journal in order: a trajectory's phase, or a fact's name."""
    lines = [json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()[1:]]
    return [line["data"]["phase"] if line["kind"] == "trajectory" else line["name"] for line in lines]


def test_the_gate_promotes_what_is_better_and_the_next_round_starts_from_it(tmp_path):
    run = scripted(new_run(tmp_path / "run"), learner)
    policy = evolve_one(made(task_file(tmp_path, length=2), rounds=2), run)
    run.close()
    verdicts = [run.facts[f"gate {number}/val"] for number in (1, 2)]
    assert [(one["promoted"], one["holder"]) for one in verdicts] == [("memory", "base"), (None, "in place")]
    assert verdicts[0]["differences"]["memory"]["mean"] == 1.0
    assert (policy.memory, policy.as_of, policy.round) == (str(tmp_path / "run" / "memory"), 1, 1)
    explorers = {one.policy.memory for one in run.trajectories.values() if one.phase == "2/acquire"}
    assert explorers == {"as of round 1"}
    assert {one.policy.memory for one in run.trajectories.values() if one.phase == "test/in place"} == {"as of round 1"}


def test_further_arms_change_the_recall_or_the_memory_and_are_never_promoted(tmp_path):
    with open_memory(tmp_path / "stale" / "memory", embedder=HashEmbedder()) as memory:
        env = make_tasks(1)[0].env
        memory.add([Entry(id=f"s{n}", kind="demo", key=f"key {n}", text=f"stale {n}", env=env) for n in range(3)])
    variants = [
        {"name": "text", "recall": {"as_turns": False}},
        {"name": "two", "recall": {"nearest": {"demo": 2}}},
        {"name": "stale", "memory": str(tmp_path / "stale")},
    ]
    config = made(task_file(tmp_path, length=2), variants=variants)
    check(config)
    run = scripted(new_run(tmp_path / "run"), learner)
    evolve_one(config, run)
    run.close()
    seen = {arm: [one for one in run.trajectories.values() if one.phase == f"1/val/{arm}"] for arm in config.measured()}
    assert {arm: {len(one.recalled) for one in found} for arm, found in seen.items() if found} == {
        "memory": {3},
        "text": {3},
        "two": {2},
        "stale": {3},
    }
    assert all(one.demos for one in seen["memory"] + seen["two"]) and not any(one.demos for one in seen["text"])
    assert {id for one in seen["stale"] for id in one.recalled} <= {"s0", "s1", "s2"}
    assert {one.policy.memory for one in seen["stale"]} == {"of all rounds"}
    assert set(run.facts["gate 1/val"]["differences"]) == {"memory"}
    assert list(run.facts["evaluation 1/val"]) == config.measured()


@pytest.mark.parametrize(
    ("variants", "why"),
    [
        ([{"name": "memory"}], "memory is the name of another arm"),
        ([{"name": "a"}, {"name": "a"}], "a is the name of another arm"),
        ([{"name": "a", "recall": {"nearst": {"demo": 1}}}], "nearst"),
        ([{"name": "a/b"}], "pattern"),
        ([{"name": "a", "like": "base"}], "'memory' or 'distilled"),
    ],
)
def test_variants_that_cannot_be_are_named(tmp_path, variants, why):
    with pytest.raises(ValueError, match=why):
        made(task_file(tmp_path), variants=variants)


def test_a_variant_s_memory_that_is_none_is_named_before_anything_is_spent(tmp_path):
    with pytest.raises(AgentevolveError, match="nowhere: neither a memory folder nor a run with one"):
        check(made(task_file(tmp_path), variants=[{"name": "stale", "memory": str(tmp_path / "nowhere")}]))


def test_the_gate_rolls_back_what_is_not_better(tmp_path):
    run = scripted(new_run(tmp_path / "run"), lambda messages, choices: "wait")
    policy = evolve_one(made(task_file(tmp_path, length=2), gate={"rule": "mean"}), run)
    run.close()
    assert run.facts["gate 1/val"]["promoted"] is None
    assert policy == Policy(model="random")


def attic(messages, choices) -> str:
    """Learns to walk in corridors from what it recalls, and forgets by that how to walk in attics."""
    if "Attic" not in messages[-1].content:
        return learner(messages, choices)
    return "wait" if learner(messages, choices) != "wait" else walker(messages, choices)


def guarding(tmp_path, **gate) -> Config:
    guard = task_file(tmp_path, "attic", length=2, name="Attic")
    rule = {"guards": [str(guard)], "guard_tasks": 8, "rule": "mean"} | gate
    return made(task_file(tmp_path, length=2), test={"tasks": 0}, gate=rule)


@pytest.mark.parametrize(("script", "promoted", "change"), [(attic, None, -1.0), (learner, "memory", 1.0)])
def test_what_forgets_another_task_set_is_not_promoted(tmp_path, script, promoted, change):
    config = guarding(tmp_path)
    check(config)
    run = scripted(new_run(tmp_path / "run"), script)
    policy = evolve_one(config, run)
    run.close()
    fact = run.facts["gate 1/val"]
    assert (fact["promoted"], fact["differences"]["memory"]["mean"]) == (promoted, 1.0)
    found = fact["guards"]["memory"]["attic"]
    assert (found["mean"], found["n"], found["forgets"]) == (change, 8, promoted is None)
    assert bool(policy.memory) is (promoted is not None)
    phases = {one.phase for one in run.trajectories.values() if one.task.data.get("name") == "Attic"}
    assert phases == {"val/guard/attic/base", "1/val/guard/attic/memory"}
    assert run.costs()["evaluate"] != run.costs()["acquire"]
    assert not [one for one in run.acquired() if one.task.data.get("name") == "Attic"]


def test_a_guard_that_is_not_there_is_named_before_anything_is_spent(tmp_path):
    with pytest.raises(AgentevolveError, match="unknown task set 'attics'"):
        check(made(task_file(tmp_path), gate={"guards": ["attics"]}))


@pytest.mark.parametrize(
    ("gate", "why"),
    [
        ({"looks": 3, "rule": "mean"}, "only the rule interval can end a measurement early"),
        ({"guards": ["coin", "a/coin.yaml"]}, "two of them have the same name"),
        ({"looks": 0}, "greater than or equal to 1"),
        ({"tolerance": -0.1}, "greater than or equal to 0"),
    ],
)
def test_gates_that_cannot_be_are_named(tmp_path, gate, why):
    with pytest.raises(ValueError, match=why):
        made(task_file(tmp_path), gate=gate)


def test_a_clear_winner_ends_the_measurement_early_and_the_next_round_may_need_more(tmp_path):
    config = made(task_file(tmp_path, length=2), rounds=2, val={"tasks": 40}, test={"tasks": 0}, gate={"looks": 4})
    run = scripted(new_run(tmp_path / "run"), learner)
    evolve_one(config, run)
    facts = dict(run.facts)
    run.close()
    first, second = facts["gate 1/val"], facts["gate 2/val"]
    assert (first["promoted"], first["tasks"], first["of"]) == ("memory", 20, 40)  # 10 are not enough so early
    assert (second["promoted"], second["tasks"]) == (None, 40)
    assert [len(facts[f"evaluation {number}/val"]["base"]) for number in (1, 2)] == [20, 40]
    again = scripted(new_run(tmp_path / "run"), learner)
    evolve_one(config, again)
    again.close()
    assert dict(again.facts) == facts


def test_an_earlier_policy_can_be_put_back_and_further_rounds_go_on_from_it(tmp_path):
    config = made(task_file(tmp_path, length=2), test={"tasks": 0})
    run = scripted(new_run(tmp_path / "run"), learner)
    assert evolve_one(config, run).memory
    run.close()
    assert take_back(tmp_path / "run", 0, "it shouts") == [
        f"{tmp_path / 'run'}: taken back after round 1: the base is in place (it shouts)"
    ]
    again = scripted(new_run(tmp_path / "run"), learner)
    policy = evolve_one(config.model_copy(update={"rounds": 2}), again)
    again.close()
    assert {one.policy.memory for one in again.trajectories.values() if one.phase == "2/acquire"} == {None}
    assert again.facts["gate 2/val"]["holder"] == "base" and policy.as_of == 2
    with pytest.raises(AgentevolveError, match=r"no earlier round 2; known: 0 \(the base\) to 1"):
        take_back(tmp_path / "run", 2, "")
    take_back(tmp_path / "run", 0, "")
    take_back(tmp_path / "run", 1, "")
    last = read_run(tmp_path / "run")
    assert taken_back(last, 2) == 1 and taken_back(last, 1) == 0


def test_nothing_is_put_back_under_a_round_that_has_begun(tmp_path):
    run = scripted(new_run(tmp_path / "run"), learner)
    config = made(task_file(tmp_path, length=2), test={"tasks": 0})
    run.once("begun", lambda: True)
    with pytest.raises(AgentevolveError, match="no earlier round 0; known: none, no round has ended"):
        take_back_of(run)
    run = scripted(new_run(tmp_path / "run"), learner)
    evolve_one(config, run)
    run.round = 2
    run.add(next(iter(run.trajectories.values())).model_copy(update={"id": "2/acquire/x", "phase": "2/acquire"}))
    with pytest.raises(AgentevolveError, match="round 2 has begun with the policy in place after round 1"):
        take_back_of(run)


def take_back_of(run: Run) -> None:
    run.close()
    take_back(run.folder, 0, "")


def test_the_course_of_a_run_is_what_was_in_place_after_each_round(tmp_path):
    config = made(task_file(tmp_path, length=2), rounds=2, test={"tasks": 0}, seeds=[0, 1])
    runs = []
    for seed in config.seeds:
        run = scripted(new_run(tmp_path / f"seed-{seed}", seed=seed), learner if seed else lambda *_: "wait")
        evolve_one(config, run)
        run.close()
        runs.append(run)
    stages = course(runs)
    assert [(one.round, one.arms, one.n, one.success) for one in stages] == [
        (1, ("base", "memory"), 12, 0.5),
        (2, ("base", "in place"), 12, 0.5),
    ]
    assert stages[0].low < 0.5 < stages[0].high and (stages[0].different, stages[0].inadmissible) == (3, 0.0)
    assert in_place(runs, "gate on")[2].arm == "gate on" and in_place(runs, "gate on")[2].success == 0.5
    assert course([]) == []
    half = new_run(tmp_path / "half")
    assert course([runs[0], half]) == []
    half.close()


def test_a_run_goes_on_for_more_rounds_unless_its_test_was_measured(tmp_path):
    config = made(task_file(tmp_path, length=2), arms=["base"], val={"tasks": 2}, test={"tasks": 0})
    evolve(config, tmp_path / "run", quiet=True)
    more = config.model_copy(update={"rounds": 2})
    (run,) = evolve(more, tmp_path / "run", resume=True, quiet=True)
    assert {one.phase for one in run.trajectories.values()} == {"1/acquire", "val/base", "2/acquire"}
    with pytest.raises(AgentevolveError, match=r"was made with other settings \(rounds\)"):
        evolve(config, tmp_path / "run", resume=True, quiet=True)
    tested = made(task_file(tmp_path, length=2), arms=["base"], val={"tasks": 2}, test={"tasks": 2}, seeds=[0, 1])
    evolve(tested, tmp_path / "tested", quiet=True)
    before = (tmp_path / "tested" / "config.yaml").read_text()
    with pytest.raises(AgentevolveError, match="rounds: test was measured after round 1, and is touched once, at the end"):
        evolve(tested.model_copy(update={"rounds": 2}), tmp_path / "tested", resume=True, quiet=True)
    assert (tmp_path / "tested" / "config.yaml").read_text() == before


def test_the_test_split_is_measured_once_and_last(tmp_path):
    run = scripted(new_run(tmp_path / "run"), learner)
    evolve_one(made(task_file(tmp_path, length=2), rounds=2), run)
    run.close()
    order = kinds(tmp_path / "run")
    assert order[-11:] == ["test/base"] * 5 + ["test/in place"] * 5 + ["evaluation test"]
    assert order[-12] == "gate 2/val"
    assert not [name for name in order[:-11] if "test" in name]


def test_held_out_tasks_are_neither_practised_nor_remembered(tmp_path):
    run = scripted(new_run(tmp_path / "run"), learner)
    evolve_one(made(task_file(tmp_path, length=2), rounds=2), run)
    run.close()
    splits = {}
    for one in run.trajectories.values():
        splits.setdefault(one.phase.split("/")[-1] if "acquire" in one.phase else "measured", set()).add(one.task.split)
    assert splits == {"acquire": {"train"}, "measured": {"val", "test"}}
    entries = read_entries(tmp_path / "run" / "memory")
    assert len(entries) >= 6
    assert {run.trajectories[source].task.split for entry in entries for source in entry.sources} == {"train"}


def test_a_task_that_is_learnt_from_and_measured_on_is_refused():
    train, val = make_tasks(3), make_tasks(3, split="val")
    held_out(train, val)
    with pytest.raises(ValueError, match="corridor/train/1"):
        held_out(train, [*val, train[1]])


def test_no_task_is_practised_twice_and_another_seed_practises_others(tmp_path):
    config = made(task_file(tmp_path, length=2), test={"tasks": 0})
    chosen = []
    for seed in (0, 1):
        run = new_run(tmp_path / f"run-{seed}", seed=seed)
        evolve_one(config, run)
        run.close()
        chosen.append({one.task.id for one in run.trajectories.values() if one.phase == "1/acquire"})
        assert len(chosen[-1]) == 6
    assert chosen[0] != chosen[1]


def test_resuming_a_finished_run_does_nothing_new(tmp_path):
    config = made(task_file(tmp_path, length=2), arms=["base"], seeds=[0, 1])
    first = evolve(config, tmp_path / "run", quiet=True)
    journals = [(one.folder / JOURNAL).read_bytes() for one in first]
    assert [one.folder.name for one in first] == ["seed-0", "seed-1"]
    again = evolve(config, tmp_path / "run", resume=True, quiet=True)
    assert [(one.folder / JOURNAL).read_bytes() for one in again] == journals
    assert [one.trajectories for one in again] == [one.trajectories for one in first]


def test_a_run_is_neither_overwritten_nor_mixed_with_another(tmp_path):
    config = made(task_file(tmp_path, length=2), arms=["base"], val={"tasks": 1}, test={"tasks": 0})
    evolve(config, tmp_path / "run", quiet=True)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    other = config.model_copy(update={"temperature": 0.5})
    for settings, resume, said in ((config, False, "holds a run already"), (other, True, "was made with other settings")):
        with pytest.raises(AgentevolveError, match=said):
            evolve(settings, tmp_path / "run", resume=resume, quiet=True)
    with pytest.raises(AgentevolveError, match="not empty and not a run"):
        evolve(config, tmp_path, quiet=True)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tasks": "corridr"}, "unknown task set 'corridr'; known: "),
        ({"model": "nobody/x"}, "unknown model 'nobody/x'"),
        ({"model": "local/none"}, "none"),
        ({"settings": {"rows": 9}}, "the method 'agentevolve' fine-tunes, but 'random' is not a local model: settings.rows=0"),
        ({"method": "rest_em", "settings": {}}, "the method 'rest_em' fine-tunes, but 'random' is not a local model"),
        ({"settings": {"rows": 0, "reflections": 3}}, "agentevolve asks for 3 reflections, but 'random' writes no text"),
        ({"settings": {"sample": 1}}, "method 'agentevolve': unknown key sample; known: samples, epsilon"),
        (
            {"settings": {"rows": 0, "samples": -1}},
            "method 'agentevolve': samples: Input should be greater than or equal to 0, not -1",
        ),
        ({"settings": {"lora": {"rank": 0}}}, "method 'agentevolve': lora.rank: "),
        ({"method": "agentevolv"}, "unknown method 'agentevolv'; known: ace, agent_evol, agentevolve, "),
        ({"method": "worlds:nothing"}, "'worlds:nothing': there is no 'nothing' in worlds"),
        ({"val": {"tasks": 0}}, "val.tasks is 0"),
    ],
)
def test_a_config_that_cannot_be_run_is_refused_before_anything_is_written(tmp_path, changes, said):
    config = made(task_file(tmp_path, length=2), **changes)
    with pytest.raises(AgentevolveError, match=said) as caught:
        evolve(config, tmp_path / "run", quiet=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_task_set_without_the_split_that_is_measured_is_refused(tmp_path):
    path = task_file(tmp_path, length=2)
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "test:" not in line))
    check(made(path, test={"tasks": 0}))
    with pytest.raises(AgentevolveError, match="no split 'test'; known: train, val"):
        check(made(path))


# --- being killed ---

KILLS = 10


def killed_config(folder: Path) -> Config:
    tasks = task_file(folder, length=2, limit=6, pause=0.004, log=str(folder / "log"))
    arms = ["base", "memory", "shuffled"]
    settings = {"samples": 4, "epsilon": [1.0], "reflections": 0, "rows": 0}
    return made(tasks, arms=arms, rounds=2, train={"tasks": 8}, settings=settings, val={"tasks": 8})


def child(folder: Path) -> None:
    """What is killed: a whole evolution, or what is left of it."""
    run = new_run(folder / "run", workers=WORKERS)
    evolve_one(killed_config(folder), run)
    run.close()


def whole_lines(folder: Path) -> list[bytes]:
    path = folder / "run" / JOURNAL
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def attempts(lines: list[bytes]) -> int:
    return sum(line[:20] == b'{"kind":"trajectory"' for line in lines)


def finished(folder: Path) -> int:
    return len((folder / "log").read_text().splitlines()) if (folder / "log").exists() else 0


def start(child: Callable[[Path], None], folder: Path) -> multiprocessing.Process:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["agentevolve.loop.evolve", "chromadb", "worlds"])
    process = context.Process(target=child, args=(folder,))
    process.start()
    return process


def test_killed_at_any_moment_it_goes_on_where_it_was(tmp_path):
    expected_folder, folder = tmp_path / "whole", tmp_path / "killed"
    child(expected_folder)
    expected = read_run(expected_folder / "run")
    chance, total = random.Random(7), len(expected.journal.read())
    seen, done, phases, killed = [], 0, set(), 0
    for at in sorted(chance.sample(range(total - 20), KILLS)):
        process = start(child, folder)
        while process.is_alive() and len(whole_lines(folder)) < at:
            time.sleep(0.002)
        time.sleep(chance.uniform(0.0, 0.03))
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        killed += process.exitcode != 0
        lines = whole_lines(folder)
        assert lines[: len(seen)] == seen
        assert 0 <= finished(folder) - done - (attempts(lines) - attempts(seen)) <= WORKERS
        seen, done = lines, finished(folder)
        phases.add(json.loads(lines[-1]).get("data", {}).get("phase", "") if lines else "")
    process = start(child, folder)
    process.join()
    assert process.exitcode == 0
    lines = whole_lines(folder)
    assert lines[: len(seen)] == seen
    assert finished(folder) - done == attempts(lines) - attempts(seen)
    assert len(phases) >= 3 and killed >= KILLS - 2  # on a slow machine one may be through before it is shot

    run = read_run(folder / "run")
    ids = [json.loads(line)["data"]["id"] for line in lines if line.startswith(b'{"kind":"trajectory"')]
    assert sorted(ids) == sorted(expected.trajectories)
    assert {id: gist(one) for id, one in run.trajectories.items()} == {id: gist(one) for id, one in expected.trajectories.items()}
    assert run.facts == expected.facts
    same_memory(folder / "run" / "memory", expected_folder / "run" / "memory")


def same_memory(killed: Path, whole: Path) -> None:
    """The same entries in both, each once, and an index that holds their keys and no others."""
    assert read_entries(killed) == read_entries(whole) != []
    lines = [sorted((folder / "entries.jsonl").read_text().splitlines()) for folder in (killed, whole)]
    assert lines[0] == lines[1] != []
    with open_memory(killed, create=False, embedder=HashEmbedder()) as memory:
        memory.search("the lamp", 1)
    index = Index(killed / "chroma", HashEmbedder())
    held = index.ids()
    index.close()
    assert held == {collection_name(shelf): set(keys) for shelf, keys in read_ledger(killed).shelves().items()}


def test_a_memory_under_way_is_not_opened_twice(tmp_path):
    run = new_run(tmp_path / "run")
    with pytest.raises(AgentevolveError, match="in use by this process"):
        new_run(tmp_path / "run")
    run.close()
    new_run(tmp_path / "run").close()
    assert os.listdir(tmp_path / "run") == ["memory"]


def test_a_base_that_cannot_be_trained_is_refused_before_anything_is_acquired(tmp_path):
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text('{"model_type": "mamba"}')
    (tmp_path / "odd" / "model.safetensors").write_bytes(b"weights")
    model = f"local/{tmp_path / 'odd'}"
    config = made(task_file(tmp_path), model=model, method="rest_em", settings={})
    with pytest.raises(AgentevolveError, match="odd cannot be fine-tuned: its architecture is 'mamba'; known: gemma3_text"):
        evolve(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    check_method("reflexion", {}, model)
