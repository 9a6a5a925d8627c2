"""The command line: a user's mistake is one line and exit code 2 and leaves nothing behind; `--json` is JSON."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lines import COMPARISON, CONFIG, refused, remembered, tree
from worlds import TASKS, make_tasks, new_run, task_file

from agentevolve.act.rollout import rollout
from agentevolve.local.rows import render
from agentevolve.memory import HashEmbedder, open_memory
from agentevolve.policy import Policy
from agentevolve.run.folder import JOURNAL, Run, read_run
from agentevolve.update import examples, memory_of

BROKEN = {
    "list.yaml": (b"- a\n", "a list, not a mapping"),
    "empty.yaml": (b"", "empty, not a mapping"),
    "latin.yaml": (b"name: caf\xe9\n", "not UTF-8"),
    "field.yaml": (TASKS.format(settings={}).replace("licence", "license").encode(), "licence is missing"),
    "overlap.yaml": (TASKS.format(settings={}).replace("[100, 140]", "[39, 60]").encode(), "share seeds"),
    "game.yaml": (
        TASKS.format(settings={"game": "chess"}).replace("worlds:Corridor", "textworld_express").encode(),
        "unknown game 'chess'",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_task_set_is_one_line(ask, tmp_path, name):
    text, said = BROKEN[name]
    (tmp_path / name).write_bytes(text)
    for words in (("tasks", name), ("run", name, "--model", "random")):
        answer = refused(ask, tmp_path, *words)
        assert f"{name}: " in answer
        assert said in answer


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("tasks", "coinn"), "unknown task set 'coinn'; known: "),
        (("run", "coinn", "--model", "random"), "unknown task set 'coinn'; known: "),
        (("run", "none.yaml", "--model", "random"), "none.yaml: cannot be read: No such file"),
        (("run", "corridor.yaml", "--model", "nobody/x"), "unknown model 'nobody/x'"),
        (("run", "corridor.yaml", "--model", "local/none"), "none"),
        (("run", "corridor.yaml", "--model", "random", "--limit", "-1"), "limit is -1"),
        (("run", "corridor.yaml", "--model", "random", "--limit", "0"), "no task of split 'val' was asked for"),
        (("run", "corridor.yaml", "--model", "random", "--split", "dev"), "no split 'dev'; known: train, val, test"),
        (("run", "corridor.yaml", "--model", "random", "--memory", "."), "neither a memory folder nor a run with one"),
        (("run", "corridor.yaml", "--model", "random", "--adapter", "."), "an adapter needs a local model, not 'random'"),
        (("run", "corridor.yaml", "--model", "local/smollm2-135m", "--adapter", "."), "not an adapter"),
        (("evolve", "none.yaml"), "none.yaml: cannot be read"),
        (("evolve", "evolve.yaml", "round=2"), "unknown key round; known: tasks, model"),
        (("evolve", "evolve.yaml", "rounds"), "not of the form key=value"),
        (("evolve", "evolve.yaml", "tasks=coinn"), "unknown task set 'coinn'"),
        (("evolve", "evolve.yaml", "model=nobody/x"), "unknown model 'nobody/x'"),
        (("evolve", "evolve.yaml", "val.tasks=-1"), "val.tasks: "),
        (("evolve", "evolve.yaml", "--resume"), "--resume needs --out"),
        (("compare", "none.yaml"), "none.yaml: cannot be read"),
        (("compare", "compare.yaml", "budget.tokens=0"), "budget.tokens: "),
        (("compare", "compare.yaml", "--method", "nobody"), "unknown method 'nobody'; known: "),
        (("compare", "compare.yaml", "--method", "memento"), "methods: two are called memento; give one a label"),
        (("compare", "compare.yaml", "--method", "nowhere:nothing"), "there is no module 'nowhere'"),
        (("compare", "compare.yaml", "tasks=coinn"), "unknown task set 'coinn'"),
        (("compare", "compare.yaml", "--resume"), "--resume needs --out"),
        (("compare", "compare.yaml", "--dry-run", "--out", "."), "not empty"),
        (("report", "."), "not a run"),
        (("memory", "list", "."), "neither a memory folder nor a run with one"),
        (("memory", "stats", "none"), "neither a memory folder nor a run with one"),
        (("distill", ".", "--out", "adapter"), "not a run"),
        (("distill", ".", "--out", "adapter", "--model", "random"), "only a local model can be fine-tuned"),
        (
            ("distill", ".", "--out", "adapter", "--learning-rate", "inf"),
            "'--learning-rate': inf is not a finite number",
        ),
        (("distill", ".", "--out", "adapter", "--learning-rate", "0"), "learning_rate: Input should be greater than 0, not 0.0"),
        (("distill", ".", "--out", "adapter", "--max-length", "99999999"), "max_length: Input should be less than or equal to"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(smollm2, ask, tmp_path, words, said):
    task_file(tmp_path)
    (tmp_path / "evolve.yaml").write_text(CONFIG)
    (tmp_path / "compare.yaml").write_text(COMPARISON)
    assert said in refused(ask, tmp_path, *words)


def test_a_world_that_is_not_there_is_one_line(ask, tmp_path):
    path = task_file(tmp_path)
    path.write_text(path.read_text().replace("worlds:Corridor", "worlds:Tunnel"))
    (tmp_path / "evolve.yaml").write_text(CONFIG)
    for words in (("run", "corridor.yaml", "--model", "random"), ("evolve", "evolve.yaml")):
        assert "there is no 'Tunnel' in worlds; known: " in refused(ask, tmp_path, *words)


def test_a_memory_is_searched_with_what_it_was_made_with_and_refused_if_that_is_another_now(ask, tmp_path):
    task_file(tmp_path)
    open_memory(tmp_path / "memory", embedder=HashEmbedder()).close()
    words = ("run", "corridor.yaml", "--model", "random", "--memory", "memory", "--limit", "1", "--quiet")
    assert ask(*words, "--out", "r")[0] == 0
    about = tmp_path / "memory" / "memory.json"
    about.write_text(about.read_text().replace(HashEmbedder.identity, "another hash"))
    answer = refused(ask, tmp_path, *words, "--out", "s")
    assert "made with hash-64 (another hash)" in answer and "cannot be searched with hash-64" in answer


def test_a_damaged_journal_is_named_by_file_and_line_and_left_alone(ask, tmp_path):
    task_file(tmp_path)
    words = ("run", "corridor.yaml", "--model", "random", "--limit", "2", "--out", "r", "--quiet")
    assert ask(*words)[0] == 0
    lines = (tmp_path / "r" / JOURNAL).read_bytes().splitlines(keepends=True)
    (tmp_path / "r" / JOURNAL).write_bytes(lines[0] + lines[1][:40] + b"\n" + lines[2])
    for again in (words, ("report", "r")):
        assert f"r/{JOURNAL}:2: not a journal line" in refused(ask, tmp_path, *again)


@pytest.mark.parametrize("kept", [0, 1])
def test_an_evaluation_whose_attempt_is_not_in_the_journal_is_one_line(ask, tmp_path, kept):
    task_file(tmp_path)
    (tmp_path / "evolve.yaml").write_text(CONFIG)
    assert ask("evolve", "evolve.yaml", "workers=1", "--out", "r", "--quiet")[0] == 0
    path = tmp_path / "r" / JOURNAL
    lines = path.read_text().splitlines(keepends=True)
    measured = [n for n, line in enumerate(lines) if '"phase":"val/base"' in line]
    lost = json.loads(lines[measured[-1]])["data"]["id"]
    path.write_text("".join(line for n, line in enumerate(lines) if n not in measured[kept and -1 :]))
    said = f"r/{JOURNAL}: the evaluation 1/val names the attempt '"
    assert said in refused(ask, tmp_path, "report", "r")
    assert (lost in refused(ask, tmp_path, "report", "r")) is bool(kept)


def test_a_run_in_use_is_refused_and_can_be_read(ask, tmp_path):
    task_file(tmp_path)
    words = ("run", "corridor.yaml", "--out", "r", "--quiet", "--model", "oracle", "--limit", "2")
    assert ask(*words)[0] == 0
    owner = Run(tmp_path / "r")
    assert f"r: in use by this process ({os.getpid()}) already" in refused(ask, tmp_path, *words)
    for reading in (("report", "r"), ("distill", "r", "--out", "a", "--model", "local/smollm2-135m")):
        assert "in use" not in ask(*reading)[2]
    owner.close()
    assert ask(*words)[0] == 0
    assert not (tmp_path / "r" / "lock").exists()


def test_a_memory_in_use_is_searched_and_recalled_from_by_runs_in_other_processes(ask, tmp_path):
    task_file(tmp_path, length=2)
    owner = Run(remembered(tmp_path / "r"), quiet=True)
    memory_of(owner).recall("the lamp", env="worlds:Corridor", k=1)
    words = ("run", "corridor.yaml", "--model", "random", "--memory", "r", "--limit", "2", "--quiet", "--out")
    code = "from agentevolve.cli.main import main; main()"
    settings = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    others = [
        subprocess.Popen(
            [sys.executable, "-c", code, *words, name], cwd=tmp_path, env=settings, stderr=subprocess.PIPE, text=True
        )
        for name in ("one", "two")
    ]
    assert len(json.loads(ask("memory", "search", "r", "the lamp is left", "--k", "2", "--json")[1])) == 2
    for name, other in zip(("one", "two"), others, strict=True):
        assert (other.communicate(timeout=240)[1], other.returncode) == (f"run: {name}\n", 0)
        assert all(one.recalled for one in read_run(tmp_path / name).trajectories.values())
    assert "in use by" in refused(ask, tmp_path, "memory", "rebuild", "r")
    owner.close()


def test_a_full_disk_is_one_line(ask, tmp_path):
    task_file(tmp_path)
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / JOURNAL).symlink_to("/dev/full")
    code, _, err = ask("run", "corridor.yaml", "--model", "random", "--limit", "2", "--out", "r", "--quiet")
    assert (code, err) == (2, f"error: r/{JOURNAL}: cannot write: No space left on device\n")


def test_a_backend_that_refuses_connections_scores_nothing_and_says_so(ask, tmp_path):
    task_file(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{free.getsockname()[1]}/v1"  # bound, not listening: every connection is refused
        words = ("run", "corridor.yaml", "--model", "openai/x", "--api-base", base, "--limit", "2", "--out", "r")
        code, out, err = ask(*words, "--model-options", "tries=2,pause=0", "--json", "--quiet")
    assert (code, out) == (2, "")
    assert err.startswith("error: run: all 2 attempts were lost: ModelError: openai/x: ") and err.count("\n") == 1
    found = [json.loads(line)["data"] for line in (tmp_path / "r" / JOURNAL).read_text().splitlines()[2:]]
    assert {one["end"] for one in found} == {"error"} and len(found) == 2 * 3  # what may pass is made again twice
    (report,) = json.loads(ask("report", "r", "--json")[1])["run val"]
    assert (report["n"], report["errors"]) == (0, 2)


def test_a_run_goes_on_and_another_policy_is_refused(ask, tmp_path):
    task_file(tmp_path)
    words = ("run", "corridor.yaml", "--out", "r", "--quiet", "--json", "--model", "oracle")
    assert json.loads(ask(*words, "--limit", "2")[1])["corridor val"][0]["success"] == 1.0
    first = (tmp_path / "r" / JOURNAL).read_bytes()
    assert json.loads(ask(*words, "--limit", "3")[1])["corridor val"][0]["n"] == 3
    assert (tmp_path / "r" / JOURNAL).read_bytes().startswith(first)
    (report,) = json.loads(ask("report", "r", "--json")[1])["run val"]
    assert (report["arm"], report["n"], report["success"]) == ("oracle", 3, 1.0)
    answer = refused(ask, tmp_path, "run", "corridor.yaml", "--out", "r", "--model", "random")
    assert "r: holds a run of another policy (model); name a new folder with --out" in answer


def test_evolve_draws_its_picture_and_a_run_of_one_policy_is_not_mixed_into_it(ask, tmp_path):
    task_file(tmp_path)
    (tmp_path / "evolve.yaml").write_text(CONFIG)
    code, out, err = ask("evolve", "evolve.yaml", "--out", "r", "--quiet")
    assert code == 0
    assert "gate, round 1: rolled back, base stays" in out
    assert "oracle" in out and err.splitlines()[-1] == "picture: r/report.png"
    assert (tmp_path / "r" / "report.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "holds a run already" in refused(ask, tmp_path, "evolve", "evolve.yaml", "--out", "r")
    other = refused(ask, tmp_path, "evolve", "evolve.yaml", "temperature=0.2", "--out", "r", "--resume")
    assert "was made with other settings" in other
    assert "holds a run of another policy" in refused(ask, tmp_path, "run", "corridor.yaml", "--out", "r", "--model", "random")

    (tmp_path / "r" / "report.png").unlink()
    code, out, err = ask("report", "r", "--json")
    tables = json.loads(out)
    assert code == 0
    assert [(one["arm"], one["n"]) for one in tables["1/val"]] == [("random", 4), ("oracle", 4), ("base", 4)]
    assert tables["1/val"][1]["success"] == 1.0
    assert (tmp_path / "r" / "report.png").stat().st_size > 5_000
    assert "gate, round 1" in err
    journal = (tmp_path / "r" / JOURNAL).read_bytes()
    assert ask("evolve", "evolve.yaml", "--out", "r", "--resume", "--quiet", "--json")[0] == 0
    assert (tmp_path / "r" / JOURNAL).read_bytes() == journal


def test_compare_prints_who_is_better_and_writes_its_files(ask, tmp_path, monkeypatch):
    task_file(tmp_path, length=2)
    (tmp_path / "compare.yaml").write_text(COMPARISON.replace("[memento]", "[{method: 'my_method:shortest_demos', label: once}]"))
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    words = ("compare", "compare.yaml", "--method", "my_method:shortest_demos", "--quiet", "--out", "c")
    code, out, err = ask(*words, "--dry-run")
    assert code == 0 and "controls" in out and "minutes" in out
    code, out, err = ask(*words)
    assert code == 0
    assert "shortest_demos" in out and "What cannot be concluded:" in out
    assert "forecast, acquire: " in err
    assert err.splitlines()[-1] == "written: c/table.md c/results.csv c/results.json c/curves.png"
    assert "--resume" in refused(ask, tmp_path, *words)
    before = tree(tmp_path / "c")
    code, out, err = ask(*words, "--resume", "--json")
    values = json.loads(out)
    assert [row["method"] for row in values["standings"]] == ["no learning", "random", "oracle", "once", "shortest_demos"]
    assert tree(tmp_path / "c") == before


def test_a_forecast_of_an_evolution_is_kept_and_its_error_told(ask, tmp_path):
    task_file(tmp_path)
    (tmp_path / "evolve.yaml").write_text(CONFIG)
    code, out, err = ask("evolve", "evolve.yaml", "--dry-run", "--out", "r", "--quiet", "--json")
    assert code == 0
    assert json.loads(out)["methods"]["agentevolve"]["acquire"]["attempts"] == 8
    assert not (tmp_path / "r" / JOURNAL).exists()
    code, out, err = ask("evolve", "evolve.yaml", "--out", "r", "--quiet")
    assert "forecast, acquire: 8 attempts expected, 8 spent (+0 %)" in err


def test_a_run_without_measurements_has_nothing_to_report(ask, tmp_path):
    rollout(Policy(model="oracle"), make_tasks(1), new_run(tmp_path / "r"), phase="1/acquire")
    assert "nothing is measured yet" in refused(ask, tmp_path, "report", "r")


def test_tasks_and_models_as_json(ask):
    code, out, _ = ask("tasks", "--json")
    sets = {one["name"]: one for one in json.loads(out)}
    assert code == 0 and {"coin", "twc"} <= set(sets)
    assert json.loads(ask("tasks", "coin", "--json")[1]) == [sets["coin"]]
    models = {row["model"]: row for row in json.loads(ask("models", "--json")[1])}
    assert models["local/smollm2-135m"]["bytes"] == 98_362_432 and {"licence", "cached", "speed"} < set(
        models["local/smollm2-135m"]
    )


def test_a_model_that_nobody_knows_cannot_be_measured(ask, tmp_path):
    said = refused(ask, tmp_path, "models", "gpt-9")
    assert "unknown local model 'gpt-9'; known: qwen2.5-coder-0.5b, qwen2.5-coder-1.5b, smollm2-135m" in said


def test_memory_as_json(ask, tmp_path):
    remembered(tmp_path / "r")
    entries = json.loads(ask("memory", "list", "r", "--json")[1])
    assert [entry["id"] for entry in entries] == [f"demo/1/acquire/corridor/train/{n}/0" for n in range(3)]
    assert json.loads(ask("memory", "list", "r", "--kind", "reflection", "--json")[1]) == []
    assert json.loads(ask("memory", "list", "r", "--as-of", "0", "--json")[1]) == []
    assert json.loads(ask("memory", "show", "r", entries[1]["id"], "--json")[1]) == entries[1]
    stats = json.loads(ask("memory", "stats", "r/memory", "--json")[1])
    assert (stats["entries"], stats["by_kind"]) == (3, {"demo": 3})
    assert "no entry 'x'" in refused(ask, tmp_path, "memory", "show", "r", "x")


def test_memory_search_finds_the_nearest_and_rebuild_the_same(ask, tmp_path):
    remembered(tmp_path / "r")
    words = ("memory", "search", "r", "Corridor two: the lamp is left", "--k", "2", "--json")
    found = json.loads(ask(*words)[1])
    assert len(found) == 2
    assert found[0]["similarity"] >= found[1]["similarity"]
    assert ask("memory", "rebuild", "r")[:2] == (0, "r: 3 keys indexed\n")
    assert json.loads(ask(*words)[1]) == found


@pytest.mark.parametrize("words", [("tasks",), ("tasks", "coin"), ("models",), ("memory", "list", "r"), ("memory", "stats", "r")])
def test_tables_are_printed_without_json(ask, tmp_path, words):
    if "r" in words:
        remembered(tmp_path / "r")
    code, out, err = ask(*words)
    assert (code, err) == (0, "") and len(out.splitlines()) >= 3


def test_in_a_process_of_its_own_there_is_no_traceback(tmp_path):
    words = [sys.executable, "-c", "from agentevolve.cli.main import main; main()", "run", "coinn", "--model", "random"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_command_is_resumed_to_the_same_end(tmp_path):
    task_file(tmp_path, length=2, pause=0.01)
    config = CONFIG.replace("arms: [random, oracle, base]", "arms: [random, base, memory]\nrounds: 2")
    (tmp_path / "evolve.yaml").write_text(config.replace("samples: 2", "samples: 4"))
    code = "from agentevolve.cli.main import main; main()"
    words = [sys.executable, "-c", code, "evolve", "evolve.yaml", "--quiet", "--json", "--out"]
    settings = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}

    def finish(*more: str) -> dict:
        done = subprocess.run([*words, *more], cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    expected = finish("whole")
    lines = len((tmp_path / "whole" / JOURNAL).read_text().splitlines())
    journal, resume = tmp_path / "killed" / JOURNAL, ()
    for at in (0, lines // 3, lines // 2):
        process = subprocess.Popen([*words, "killed", *resume], cwd=tmp_path, env=settings, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= at):
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it was through before it could be killed"
        resume = ("--resume",)
    found = finish("killed", *resume)
    ids = [json.loads(line)["data"]["id"] for line in journal.read_text().splitlines() if line.startswith('{"kind":"trajectory"')]
    assert len(set(ids)) == len(ids)
    assert [without_clock(found), len(journal.read_text().splitlines())] == [without_clock(expected), lines]


def without_clock(tables: dict) -> dict:
    """The reports without the seconds that they took."""
    course = {name: tables[name] for name in tables if name == "in place by round"}
    reports = {name: tables[name] for name in tables if name not in course}
    return course | {name: [{**one, "usage": {**one["usage"], "seconds": 0}} for one in found] for name, found in reports.items()}


def test_distill_says_what_it_learnt_from_and_what_not(ask, tmp_path):
    sys.path.append(str(Path(__file__).parents[1] / "local"))
    import tiny

    run = new_run(tmp_path / "run")
    lived = rollout(Policy(model="oracle"), make_tasks(3), run, phase="1/acquire")
    run.close()
    tiny.folder(tmp_path / "tiny")
    lengths = [len(render(row, tiny.tokenizer()).ids) for row in examples(lived)]
    words = ("distill", "run", "--model", "local/tiny", "--epochs", "1", "--quiet", "--out", "adapter", "--max-length")
    code, out, err = ask(*words, max(lengths) - 1)
    assert code == 0
    assert err.splitlines()[-1] == f"adapter: {lengths.count(max(lengths))} rows cut to {max(lengths) - 1} tokens"
    assert out.startswith("adapter: learnt from 3 trajectories; ")
    os.rename("adapter", "other")
    assert "nothing to learn in 3 examples: 3 × no answer within 20 tokens" in refused(ask, tmp_path, *words, "20")
