"""The examples do what their comments say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentevolve.config import read_comparison, read_config
from agentevolve.load import methods
from agentevolve.loop.compare import check_comparison
from agentevolve.loop.evolve import check

EXAMPLES = Path(__file__).parent.parent / "examples"
# the control of stale memory needs what stale.yaml makes
CONFIGS = {
    "quickstart.yaml": ["model=local/smollm2-135m"],  # the larger one is fetched at its first use
    "lift.yaml": [],
    "stale.yaml": [],
    "memory.yaml": ["variants=[]"],
}


def agentevolve(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from agentevolve.cli.main import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_configs_can_be_run(name):
    check(read_config(EXAMPLES / name, CONFIGS[name]))


def test_the_comparison_has_every_method_and_can_be_run():
    config = read_comparison(EXAMPLES / "compare.yaml")
    check_comparison(config)
    assert sorted(entrant.method for entrant in config.methods) == methods()
    assert len(config.seeds) >= 3


def test_the_proof_uses_the_quickstarts_settings():
    quick, proof = (read_config(EXAMPLES / name) for name in ("quickstart.yaml", "memory.yaml"))
    free = {"model", "seeds", "val", "arms", "variants"}
    assert quick.model_dump(exclude=free) == proof.model_dump(exclude=free)


def test_examples_are_short():
    lines = {
        path.name: path.read_text(encoding="utf-8").count("\n") for path in EXAMPLES.iterdir() if path.suffix in (".py", ".yaml")
    }
    assert {name: n for name, n in lines.items() if n > (60 if name.endswith(".py") else 40)} == {}


@pytest.mark.parametrize(("model", "least", "most"), [("oracle", 1.0, 1.0), ("random", 0.05, 0.5)])
def test_a_world_of_ones_own_is_played(tmp_path, model, least, most):
    arguments = (EXAMPLES / "guess.yaml", "--model", model, "--limit", 100, "--out", tmp_path / "run", "--json")
    done = agentevolve("run", *arguments, PYTHONPATH=str(EXAMPLES))
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)["guess val"]
    assert report["n"] == 100
    assert least <= report["success"] <= most


@pytest.mark.slow
def test_every_method_runs_for_real(tmp_path):
    """The embedded model acts, judges, reflects and is fine-tuned on TextWorldExpress by each of the methods; nothing breaks."""
    small = ("seeds=[0]", "train.tasks=4", "held.tasks=2", "rounds=1")
    done = agentevolve("compare", EXAMPLES / "compare.yaml", *small, "--out", tmp_path / "c", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["standings"]
    assert sorted(row["method"] for row in rows[3:]) == methods()
    assert {row["method"]: (row["rounds"], row["errors"]) for row in rows[3:]} == {name: ([1], 0) for name in methods()}
    trained = {path.parts[-3] for path in (tmp_path / "c").rglob("adapters/*") if path.is_dir()}
    assert {"fireact", "eto", "spin"} <= trained


@pytest.mark.slow
def test_the_quickstart_in_small(tmp_path):
    """The real model acts, is fine-tuned and served again; every arm is measured and the gate has decided."""
    small = ("train.tasks=30", "settings.rows=3", "settings.lora.epochs=1", "val.tasks=2", "settings.reflections=1", "threads=1")
    done = agentevolve("evolve", EXAMPLES / "quickstart.yaml", *small, "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    reports = json.loads(done.stdout)["1/val"]
    assert [report["arm"] for report in reports] == read_config(EXAMPLES / "quickstart.yaml").arms
    assert all(report["n"] == 2 and report["errors"] == 0 for report in reports)
    assert (tmp_path / "run" / "report.png").stat().st_size > 0
    assert (tmp_path / "run" / "adapters" / "round-1" / "adapter.gguf").is_file()
    assert "gate, round 1:" in done.stderr


def test_an_agent_that_is_not_ours_remembers_through_the_store(tmp_path, smollm2):
    def says(text: str) -> str:
        command = [sys.executable, str(EXAMPLES / "remembering.py"), text]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert says("I live in Rome.") and "Rom" in says("Where do I live?")  # the 135M model may answer in Italian
    listed = agentevolve("memory", "list", str(tmp_path / "notes"), "--json")
    (kept,) = json.loads(listed.stdout)
    assert kept["kind"] == "item" and json.loads(kept["text"])["value"] == {"text": "I live in Rome."}
    assert (EXAMPLES / "remembering.py").read_text().count("\n") <= 40
