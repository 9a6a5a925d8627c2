"""Forgetting, checked by searching every byte of the folder."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from worlds import learner, make_tasks, new_run, use_model

from agentevolve.act.asking import ask
from agentevolve.act.rollout import rollout
from agentevolve.evaluate import report
from agentevolve.local.adapter import (
    CONFIG,
    GGUF,
    INFO,
    ROWS,
    WEIGHTS,
    AdapterInfo,
    LoraSettings,
    read_adapter,
    sha256,
    write_rows,
)
from agentevolve.memory import HashEmbedder, open_memory, read_entries
from agentevolve.memory.forget import forget
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.policy import Policy, Recall
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry
from agentevolve.refine import demos
from agentevolve.run.folder import Run, read_run
from agentevolve.update import examples, memory_of, remember

SECRET = "the heron sleeps at noon"


def holding(folder: Path, text: str) -> list[str]:
    """The files below the folder that hold the text, in any form in which we write it."""
    forms = {text.encode(), json.dumps(text)[1:-1].encode(), text.encode("utf-16-le")}
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path.relative_to(folder)) for path in files if any(form in path.read_bytes() for form in forms)]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run in which one attempt saw the secret: it became a demo, an insight, an answer and a row, and others were shown it."""
    run = Run(tmp_path / "r", workers=1, quiet=True)
    won = rollout(Policy(model="oracle"), make_tasks(3, length=2), run, phase="1/acquire")
    told = won[0].model_copy(
        update={
            "id": f"1/acquire/{won[0].task.id}/1",
            "sample": 1,
            "turns": (won[0].turns[0].model_copy(update={"observation": f"A voice says: {SECRET}."}), *won[0].turns[1:]),
        }
    )
    run.add(told)
    policy = Policy(model="random", recall=Recall(nearest={"demo": 4}, whole=("insight",), tokens=2000))
    use_model(
        run,
        ScriptedModel(lambda messages, choices: f"Remember that {SECRET}." if not choices else learner(messages, choices)),
        policy,
    )
    said = ask(policy, run, f"insight/{told.id}", "What can be learnt?")
    rule = Entry(id="rule", kind="insight", key="lamps", text=said, env=told.task.env, round=1, sources=(told.id, won[1].id))
    policy = remember(policy, [*demos([*won, told], 1), rule], run)
    with memory_of(run):
        rollout(policy, make_tasks(2, split="val"), run, phase="1/val/memory", measuring=True)
    adapter(run.folder / "adapters" / "round-1", examples([*won, told]))
    adapter(run.folder / "adapters" / "other", examples(won[1:2]))
    run.close()
    assert {name.partition("/")[0] for name in holding(run.folder, SECRET)} == {"journal.jsonl", "memory", "adapters"}
    return run.folder


def adapter(folder: Path, rows) -> None:
    folder.mkdir(parents=True)
    for name in (WEIGHTS, CONFIG, GGUF):
        (folder / name).write_bytes(b"x")
    write_rows(rows, folder)
    files = {name: sha256(folder / name) for name in (WEIGHTS, CONFIG, GGUF, ROWS)}
    counts = {"loss_first": 1.0, "loss_last": 1.0, "tokens": 1, "labelled": 1, "steps": 1, "seconds": 1.0, "seed": 0}
    sources = tuple(source for row in rows for source in row.sources)
    info = AdapterInfo(base="b", settings=LoraSettings(), examples=("e",), sources=sources, versions={}, files=files, **counts)
    (folder / INFO).write_text(info.model_dump_json())


def told_attempt(folder: Path) -> str:
    return next(one.id for one in read_run(folder).trajectories.values() if one.sample == 1)


def figures(folder: Path) -> list[tuple]:
    """What a report says of the attempts at `val` and of what the run has cost."""
    run = read_run(folder)
    one = report("memory", [one for one in run.trajectories.values() if one.phase == "1/val/memory"])
    return [(one.n, one.success, one.turns, one.usage), run.spent(), sorted(run.trajectories)]


def test_a_forgotten_attempt_is_in_no_byte_of_any_file(folder):
    id, before = told_attempt(folder), figures(folder)
    [found] = forget(folder, id=id)
    assert holding(folder, SECRET) == []
    assert found.attempts == (id,) and set(found.entries) == {"rule", f"demo/{id}"}
    assert (found.answers, found.rows, found.adapters) == (1, 1, ("round-1",))
    assert figures(folder) == before  # what it cost and came to stays
    run = read_run(folder)
    assert run.trajectories[id].forgotten and len(run.trajectories[id].turns) == 2
    assert demos([run.trajectories[id]], 2) == [] and examples([run.trajectories[id]]) == []
    shown = [one for one in run.trajectories.values() if one.phase == "1/val/memory"]
    assert all(one.recalled and not one.demos and not one.context for one in shown)
    assert len(read_adapter(folder / "adapters" / "round-1").sources) == 4  # its weights did learn from it


def test_what_was_forgotten_does_not_come_back_and_the_rest_is_found_as_before(folder):
    id = told_attempt(folder)
    with open_memory(folder / "memory") as memory:
        entries = memory.entries()
    forget(folder, id=id)
    with open_memory(folder / "memory") as memory:
        left = [one for one in entries if one.id not in ("rule", f"demo/{id}")]
        assert memory.entries() == left
        memory.add([one for one in entries if one not in left])
        memory.retire("rule", 2, "a killed round is run again")
        assert memory.entries() == left
        assert {one.id for one, _ in memory.recall("the lamp", env=left[0].env, k=9)} == {one.id for one in left}


def test_the_index_that_is_built_afterwards_holds_nothing_of_it_either(folder):
    """In another process, as a user's next command is: Chroma writes its graph's memory out as it was allocated, and in a process
    that has known the text that may hold a piece of it."""
    forget(folder, id=told_attempt(folder))
    code = """import sys; from pathlib import Path; from agentevolve.memory import open_memory
with open_memory(Path(sys.argv[1])) as memory: print(len(memory.recall("the lamp", env="worlds:Corridor", k=9)))"""
    done = subprocess.run([sys.executable, "-c", code, str(folder / "memory")], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n" and (folder / "memory" / "chroma").is_dir()
    assert holding(folder, SECRET) == []


def test_forgetting_twice_or_after_a_kill_ends_the_same(folder):
    id = told_attempt(folder)
    first = forget(folder, id=id)
    state = {path: path.read_bytes() for path in folder.rglob("*.jsonl")}
    again = forget(folder, id=id)
    assert first[0].attempts == again[0].attempts and {path: path.read_bytes() for path in folder.rglob("*.jsonl")} == state


def test_killed_at_any_moment_it_can_be_said_again(folder, tmp_path):
    code = """import sys; from pathlib import Path; from agentevolve.memory.forget import forget; print('on', flush=True)
forget(Path(sys.argv[1]), id=sys.argv[2])"""
    id, killed = told_attempt(folder), 0
    for pause in (0.0, 0.002, 0.005, 0.01):
        process = subprocess.Popen([sys.executable, "-c", code, str(folder), id], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "on\n"
        try:
            process.wait(pause or 0.001)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate()
    assert killed
    forget(folder, id=id)
    assert holding(folder, SECRET) == []
    assert read_run(folder).trajectories[id].forgotten


def test_an_entry_alone_can_be_forgotten(folder):
    [found] = forget(folder, id="rule")
    assert (found.attempts, found.entries) == ((), ("rule",))
    assert "rule" not in {one.id for one in read_entries(folder / "memory")}
    run = read_run(folder)
    assert not run.trajectories[told_attempt(folder)].forgotten
    assert not any(f"Remember that {SECRET}" in path.read_text() for path in folder.rglob("*.jsonl"))


def test_a_row_that_repeats_what_is_forgotten_goes_too(folder):
    run = read_run(folder)
    shown = next(one for one in run.trajectories.values() if one.phase == "1/val/memory").demos
    row = examples([run.trajectories[f"1/acquire/{make_tasks(2)[1].id}/0"]])[0]
    adapter(
        folder / "adapters" / "kept-memory", [row.model_copy(update={"prompt": (row.prompt[0], *shown, *row.prompt[1:])}), row]
    )
    [found] = forget(folder, id=told_attempt(folder))
    assert (found.rows, found.adapters) == (2, ("kept-memory", "round-1")) and holding(folder, SECRET) == []


def test_all_about_a_task_or_before_a_round_can_be_forgotten(folder):
    task = make_tasks(1)[0].id
    [found] = forget(folder, task=task)
    assert found.attempts == (f"1/acquire/{task}/0", f"1/acquire/{task}/1") and holding(folder, SECRET) == []
    [found] = forget(folder, before=2)
    assert len(found.attempts) == 6 and read_entries(folder / "memory") == []


def test_who_says_the_same_takes_its_place(tmp_path):
    run = new_run(tmp_path / "r")
    run.once("a", lambda: "fact")
    run.close()
    with open_memory(tmp_path / "r" / "memory", embedder=HashEmbedder()) as memory:
        memory.add(
            [
                Entry(id=id, kind="insight", key=id, text="the same text", env="e", sources=(f"1/acquire/{id}/0",))
                for id in ("a", "b", "c")
            ]
        )
        assert [one.id for one in memory.entries()] == ["a"]
    forget(tmp_path / "r", id="a")
    with open_memory(tmp_path / "r" / "memory") as memory:
        assert [(one.id, one.sources) for one in memory.entries()] == [("b", ("1/acquire/b/0", "1/acquire/c/0"))]
        assert memory.recall("c", env="e", k=1, kind="insight")[0][0].id == "b"


def test_what_is_not_there_changes_nothing(folder):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for asked in ({"id": "x"}, {"task": "x"}, {"before": 1}):
        with pytest.raises(AgentevolveError, match="nothing was changed"):
            forget(folder, **asked)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    with pytest.raises(AgentevolveError, match="not a run"):
        forget(folder / "memory", id="x")


def test_a_run_in_use_is_refused(folder):
    run = Run(folder, quiet=True)
    with pytest.raises(AgentevolveError, match="in use by"):
        forget(folder, id=told_attempt(folder))
    run.close()
    with open_memory(folder / "memory"), pytest.raises(AgentevolveError, match="in use by"):
        forget(folder, id=told_attempt(folder))
