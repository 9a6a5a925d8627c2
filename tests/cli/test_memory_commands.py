"""`memory why`, `trace`, `diff`, and the filters and orders of `list` and `search`."""

import json

import pytest
from worlds import learner, make_tasks, new_run, use_model

from agentevolve.act.rollout import rollout
from agentevolve.local.adapter import CONFIG, GGUF, INFO, ROWS, WEIGHTS, AdapterInfo, LoraSettings, sha256
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.policy import Policy, Recall
from agentevolve.records import Entry
from agentevolve.refine import cases, demos
from agentevolve.run.folder import Run
from agentevolve.update import memory_of, remember

TASKS = make_tasks(3, length=2)


@pytest.fixture
def run(tmp_path) -> Run:
    """Two rounds: three demos, of which one retires; a lesson; attempts that were shown two of them."""
    made = new_run(tmp_path / "r", workers=1)
    won = rollout(Policy(model="oracle"), TASKS, made, phase="1/acquire")
    policy = remember(Policy(model="random", recall=Recall(nearest={"demo": 1}, tokens=90)), demos(won, 1), made)
    use_model(made, ScriptedModel(learner), policy)
    rollout(policy, make_tasks(2, split="val"), made, phase="1/val/memory", measuring=True)
    made.round = 2
    lesson = Entry(id="i", kind="insight", key="lamps", text="Look for the lamp.", env=TASKS[0].env, round=2)
    remember(policy, [lesson, *cases(won[:1], 2)], made)
    memory_of(made).retire(f"demo/{won[1].id}", 2, "it did harm")
    made.close()
    return made


def adapter(folder, sources) -> None:
    """An adapter that says what it learnt from; its weights are none."""
    folder.mkdir(parents=True)
    for name in (WEIGHTS, CONFIG, GGUF, ROWS):
        (folder / name).write_bytes(b"x")
    files = {name: sha256(folder / name) for name in (WEIGHTS, CONFIG, GGUF, ROWS)}
    counts = {"loss_first": 1.0, "loss_last": 1.0, "tokens": 1, "labelled": 1, "steps": 1, "seconds": 1.0, "seed": 0}
    info = AdapterInfo(
        base="b", settings=LoraSettings(), examples=("e",), sources=tuple(sources), versions={}, files=files, **counts
    )
    (folder / INFO).write_text(info.model_dump_json())


def told(ask, *words):
    code, out, err = ask("memory", *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_why_tells_what_was_shown_and_what_was_left_out(ask, run):
    one = next(one for one in run.trajectories.values() if one.phase == "1/val/memory")
    found = told(ask, "why", "r", one.id)
    assert [item["looked"]["shown"] for item in found] == [True, False, False]
    assert found[0]["looked"]["id"] in one.recalled and found[0]["looked"]["tokens"] > 0
    assert {item["looked"]["why"] for item in found[1:]} == {"less near"}
    near = [item["looked"]["similarity"] for item in found]
    assert near == sorted(near, reverse=True) and all("Corridor" in item["text"] for item in found)
    assert told(ask, "why", "r", f"{one.id}:1") == []
    code, out, _ = ask("memory", "why", "r", one.id)
    assert code == 0 and "less near" in out and "shown" in out


@pytest.mark.parametrize(
    ("attempt", "said"), [("x", "no attempt 'x'; one that recalled something is 1/val/memory"), ("turn", "it has turns 1 to 3")]
)
def test_an_unknown_attempt_or_turn_is_named(ask, run, attempt, said):
    known = next(one.id for one in run.trajectories.values() if one.recalled)
    code, out, err = ask("memory", "why", "r", f"{known}:9" if attempt == "turn" else attempt)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1


def test_trace_tells_sources_uses_and_adapters(ask, run, tmp_path):
    used = [one for one in run.trajectories.values() if one.recalled]
    id = used[0].recalled[0]
    mine = [one for one in used if id in one.recalled]
    found = told(ask, "trace", "r", id)
    assert found["sources"] == found["known"] == [id.removeprefix("demo/")]
    assert [(use["trajectory"], use["at"], use["solved"]) for use in found["uses"]] == [(one.id, "start", True) for one in mine]
    assert found["adapters"] == [] and found["retired"] is None
    adapter(tmp_path / "r" / "adapters" / "round-1", found["sources"])
    adapter(tmp_path / "r" / "adapters" / "round-2", ["of something else"])
    assert told(ask, "trace", "r", id)["adapters"] == ["round-1"]
    gone = next(one.id for one in run.trajectories.values() if one.task.id == TASKS[1].id)
    code, out, _ = ask("memory", "trace", "r", f"demo/{gone}")
    assert code == 0 and "round 2: it did harm" in out
    code, _, err = ask("memory", "trace", "r", "x")
    assert code == 2 and "no entry 'x'" in err


def test_diff_tells_what_came_and_what_went(ask, run):
    found = told(ask, "diff", "r", "1", "2")
    assert [(one["what"], one["kind"], one["why"]) for one in found] == [
        ("retired", "demo", "it did harm"),
        ("added", "insight", ""),
        ("added", "case", ""),
    ]
    assert told(ask, "diff", "r", "2", "2") == []
    assert [one["what"] for one in told(ask, "diff", "r", "0", "1")] == ["added"] * 3
    code, out, _ = ask("memory", "diff", "r", "1", "2")
    assert code == 0 and "it did harm" in out


def test_list_filters_and_sorts(ask, run):
    task = TASKS[0].id
    assert {one["kind"] for one in told(ask, "list", "r", "--task", task)} == {"demo", "case"}
    assert told(ask, "list", "r", "--env", "nowhere") == []
    assert [one["kind"] for one in told(ask, "list", "r", "--sort", "kind")] == ["case", "demo", "demo", "insight"]
    used = [id for one in run.trajectories.values() for id in one.recalled]
    counts = [used.count(one["id"]) for one in told(ask, "list", "r", "--sort", "uses")]
    assert counts == sorted(counts, reverse=True) and counts[0] > 0
    sizes = [len(one["text"]) for one in told(ask, "list", "r", "--sort", "size")]
    assert sizes == sorted(sizes, reverse=True)
    code, _, err = ask("memory", "list", "r", "--sort", "colour")
    assert code == 2 and "known: age, kind, round, reward, size, uses" in err


def test_search_looks_at_words_of_the_text_too_and_filters(ask, run):
    assert told(ask, "search", "r", "Look for", "--k", "1")[0]["id"] == "i"
    assert {one["kind"] for one in told(ask, "search", "r", "lamp", "--kind", "demo")} == {"demo"}
    assert told(ask, "search", "r", "lamp", "--env", "nowhere") == []


def test_what_needs_a_run_says_so(ask, run):
    for words in (("why", "r/memory", "x"), ("trace", "r/memory", "x")):
        code, _, err = ask("memory", *words)
        assert code == 2 and "r/memory: not a run" in err and err.count("\n") == 1


def test_export_import_audit_and_forget(ask, run, tmp_path):
    code, out, _ = ask("memory", "export", "r", "out.jsonl", "--kind", "demo")
    assert (code, out) == (0, "out.jsonl: 2 entries\n")
    assert told(ask, "import", "other", "out.jsonl") == {"added": 2, "known": 0, "unsigned": 0}
    code, out, _ = ask("memory", "import", "other", "r/memory")
    assert code == 0 and "2 added, 2 known already" in out
    assert told(ask, "audit", "other") == [
        {"id": "i", "kind": "insight", "what": "says of no attempt that it came from it", "where": ""}
    ]
    assert ask("memory", "audit", "r")[0] == 0
    id = next(one.id for one in run.trajectories.values() if one.task.id == TASKS[0].id)
    code, out, _ = ask("memory", "forget", "r", id)
    assert code == 0 and "adapters" in out
    assert {one["id"] for one in told(ask, "list", "r")} == {f"demo/1/acquire/{TASKS[2].id}/0", "i"}
    for words in ((), (id, "--task", "x")):
        code, _, err = ask("memory", "forget", "r", *words)
        assert code == 2 and "name one thing to forget" in err
    code, _, err = ask("memory", "export", "r", "out.jsonl")
    assert code == 2 and "exists already" in err
