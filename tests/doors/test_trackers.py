"""A run's figures at a tracker: what it is told, when, and that its troubles are not the run's; then the real ones.

Trackio, MLflow and W&B are no dependencies: their tests run where somebody installed them beside us (pip install trackio==0.43.0
mlflow==3.17.2 wandb==0.31.0, in an environment of its own). What W&B wrote offline it reads at its own service alone: here its
records are read by its own schema of them.
"""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from worlds import task_file

from agentevolve.run.folder import read_run

CONFIG = {
    "tasks": "corridor.yaml",
    "model": "random",
    "rounds": 2,
    "train": {"tasks": 2},
    "val": {"tasks": 3},
    "arms": ["random", "base", "memory"],
    "settings": {"samples": 1, "reflections": 0, "rows": 0},
    "recall": {"whole": ["demo"], "nearest": {}},
    "embedder": "hash",
}


BLOCK = 32_768  # bytes


@pytest.fixture
def evolve(ask, tmp_path):
    """Evolve with a tracker, or go on with it."""
    task_file(tmp_path, length=1, limit=2)

    def run(track: str, *words: str) -> tuple[int, str, str]:
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG | ({"track": track} if track else {})))
        return ask("evolve", "c.yaml", "--out", "r", "--quiet", "--json", *words)

    return run


@pytest.fixture
def trackio(monkeypatch):
    """A stand-in of Trackio: what it was told."""
    told = SimpleNamespace(runs=[], logs=[], finished=0, broken=False)

    def log(figures, step):
        if told.broken:
            raise OSError("the store\nis full")
        told.logs.append((step, figures))

    def init(**given):
        print("* a banner")
        told.runs.append(given)

    def finish():
        told.finished += 1

    module = ModuleType("trackio")
    module.init, module.log, module.finish = init, log, finish
    monkeypatch.setitem(sys.modules, "trackio", module)
    return told


def test_each_round_is_a_step_with_every_arms_figures(evolve, trackio):
    code, out, err = evolve("trackio")
    assert code == 0 and json.loads(out) and "* a banner" in err
    [run] = trackio.runs
    assert (run["project"], run["name"], run["config"]["track"], trackio.finished) == ("agentevolve", "r", "trackio", 1)
    assert [step for step, _ in trackio.logs] == [1, 2]
    last = trackio.logs[-1][1]
    found = json.loads(out)["2/val"]
    memory = next(one for one in found if one["arm"] == "memory")
    assert (last["val/memory/success"], last["val/memory/n"]) == (memory["success"], memory["n"])
    assert {name.split("/")[1] for name in last if name.startswith("val/")} >= {"random", "base", "memory"}
    assert last["promoted"] in (0.0, 1.0) and last["attempts"] == len(read_run(Path("r")).trajectories)


def test_what_was_told_is_not_told_again_on_resume(evolve, trackio):
    evolve("trackio")
    assert evolve("trackio", "--resume", "rounds=3")[0] == 0
    assert [step for step, _ in trackio.logs] == [1, 2, 3]


def test_each_seed_is_a_run(evolve, trackio):
    assert evolve("trackio", "seeds=[0,1]")[0] == 0
    assert [run["name"] for run in trackio.runs] == ["r/seed-0", "r/seed-1"] and trackio.finished == 2


def test_a_tracker_that_fails_is_said_once_and_the_run_goes_on(evolve, trackio):
    trackio.broken = True
    code, out, err = evolve("trackio")
    assert code == 0 and set(json.loads(out)) >= {"1/val", "2/val"}
    assert err.count("track: trackio keeps nothing more: the store is full\n") == 1


def test_without_a_tracker_nothing_is_journalled_of_it(evolve, trackio):
    assert evolve("")[0] == 0
    assert trackio.runs == [] and not [name for name in read_run(Path("r")).facts if name.startswith("told ")]


def test_an_unknown_tracker_or_a_missing_one_is_said_before_anything_is_done(evolve, monkeypatch, tmp_path):
    code, _, err = evolve("tensorboard")
    assert code == 2 and "track: Input should be '', 'trackio', 'mlflow' or 'wandb', not 'tensorboard'" in err
    monkeypatch.setitem(sys.modules, "wandb", None)
    code, _, err = evolve("wandb")
    assert (code, err) == (2, "error: track: wandb is not installed: pip install wandb\n")
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_trackio_tells_it_again(evolve, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))
    pytest.importorskip("trackio")
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    assert evolve("trackio")[0] == 0
    [run] = [run for run in trackio.Api().runs("agentevolve") if run.name == "r"]
    assert run.config["method"] == "agentevolve"
    told = SQLiteStorage.get_logs("agentevolve", "r")
    assert [one["step"] for one in told] == [1, 2] and "val/memory/success" in told[-1]


@pytest.mark.slow
def test_mlflow_tells_it_again(evolve, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert evolve("mlflow")[0] == 0
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    [run] = client.search_runs([client.get_experiment_by_name("agentevolve").experiment_id])
    assert (run.info.run_name, run.info.status, run.data.params["method"]) == ("r", "FINISHED", "agentevolve")
    assert [one.step for one in client.get_metric_history(run.info.run_id, "val/memory/success")] == [1, 2]


@pytest.mark.slow
def test_wandb_has_written_it_down(evolve, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    assert evolve("wandb")[0] == 0
    [folder] = (tmp_path / "wandb").glob("offline-run-*")
    [file] = folder.glob("run-*.wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    found = [Record.FromString(data) for data in records(file.read_bytes())]
    [run] = [one.run for one in found if one.HasField("run")]
    assert (run.project, run.display_name) == ("agentevolve", "r")
    told = [one.history for one in found if one.HasField("history")]
    names = [{item.key or ".".join(item.nested_key) for item in one.item} for one in told]
    assert [one.step.num for one in told] == [1, 2] and all("val/memory/success" in one for one in names)


def records(data: bytes) -> list[bytes]:
    """The records of W&B's file: LevelDB's log, in blocks of 32 KB after 7 bytes that say whose it is."""
    found, part, place = [], b"", 7
    while place + 7 <= len(data):
        if (room := BLOCK - place % BLOCK) < 7:  # no header fits: the block's rest is filled with zeros
            place += room
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        part += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            found.append(part)
            part = b""
    return found
