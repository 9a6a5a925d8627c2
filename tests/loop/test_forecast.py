"""What it will cost: the probe, its scaling, and how far off it was."""

import json
import sys

import pytest
from worlds import make_tasks, task_file

from agentevolve.cli import forecast as forecasting
from agentevolve.config import Comparison, Config
from agentevolve.loop.compare import compare
from agentevolve.loop.evolve import evolve
from agentevolve.loop.forecast import FILE, Forecast, Spending, error_of, forecast_comparison, forecast_evolution, spending
from agentevolve.models.stand_ins import ScriptedModel
from agentevolve.protocols import AgentevolveError
from agentevolve.run.folder import read_run


def counting(policy, tasks, run, *, samples: int = 2):
    """A method whose cost is known: so many attempts a task, and ten tokens trained for each."""
    from agentevolve.act.rollout import rollout
    from agentevolve.records import Usage

    rollout(policy, tasks, run, phase=f"{run.round}/acquire", samples=samples)
    run.spend(f"train/{run.round}", Usage(trained_tokens=10 * len(tasks), usd=0.01 * len(tasks)))
    return policy


@pytest.fixture(autouse=True)
def found_here(monkeypatch):
    """`test_forecast:counting` names this very module."""
    monkeypatch.setitem(sys.modules, "test_forecast", sys.modules[__name__])


def evolution(path, **changes) -> Config:
    values = {
        "tasks": str(path),
        "model": "random",
        "method": "test_forecast:counting",
        "rounds": 2,
        "seeds": [0, 1],
        "train": {"tasks": 10},
        "val": {"tasks": 4},
        "test": {"tasks": 3},
        "arms": ["random", "oracle", "base", "memory"],
    }
    return Config.model_validate(values | changes)


def comparison(path, **changes) -> Comparison:
    values = {
        "tasks": str(path),
        "model": "random",
        "methods": ["test_forecast:counting", {"method": "test_forecast:counting", "label": "twice", "settings": {"samples": 4}}],
        "rounds": 2,
        "seeds": [0, 1, 2],
        "train": {"tasks": 10},
        "held": {"tasks": 5},
        "budget": {"tokens": 1000},
    }
    return Comparison.model_validate(values | changes)


def test_an_evolution_s_forecast_scales_the_probe_to_tasks_rounds_and_seeds(tmp_path):
    found = forecast_evolution(evolution(task_file(tmp_path, length=2)), tmp_path / "out", quiet=True)
    phases = found.methods["test_forecast:counting"]
    assert found.probed == 3
    assert phases["acquire"].attempts == pytest.approx(2 * 10 * 2 * 2)
    assert (phases["update"].tokens, phases["update"].usd) == (pytest.approx(2 * 10 * 2 * 10), pytest.approx(2 * 10 * 2 * 0.01))
    assert phases["evaluate"].attempts == pytest.approx(2 * (4 * (2 * 1 + 1 + 2) + 2 * 3))
    assert phases["refine"] == Spending()


def test_a_comparison_s_forecast_is_cut_to_the_budget_and_has_the_controls(tmp_path):
    path = task_file(tmp_path, length=2)
    free = forecast_comparison(comparison(path), tmp_path / "a", quiet=True)
    assert {name: phases["acquire"].attempts for name, phases in free.methods.items()} == {
        "counting": pytest.approx(120),
        "twice": pytest.approx(240),
        "controls": 0,
    }
    assert free.methods["counting"]["evaluate"].attempts == pytest.approx(3 * 5 * 2)
    assert free.methods["controls"]["evaluate"].attempts == pytest.approx(3 * 5 * 3)
    cut = forecast_comparison(comparison(path, budget={"tokens": 50}), tmp_path / "b", quiet=True)
    assert cut.methods["counting"]["update"].tokens == pytest.approx(3 * 50)
    assert cut.methods["counting"]["acquire"].attempts == pytest.approx(120 / 4)


def test_the_probe_touches_no_held_out_task(tmp_path):
    forecast_comparison(comparison(task_file(tmp_path, length=2)), tmp_path / "out", quiet=True)
    probes = [read_run(path.parent) for path in (tmp_path / "out").rglob("journal.jsonl")]
    assert {one.task.split for run in probes for one in run.trajectories.values()} == {"train"}
    assert len(probes) == 2


def test_afterwards_its_error_is_told(tmp_path):
    config, out = evolution(task_file(tmp_path, length=2), seeds=[0]), tmp_path / "out"
    forecast_evolution(config, out, quiet=True)
    assert error_of(tmp_path, []) == []
    evolve(config, out, quiet=True)
    lines = forecasting.forecast_error(out)
    assert [line.split(":")[0] for line in lines] == [
        f"forecast, {phase}" for phase in ("acquire", "refine", "update", "evaluate")
    ]
    assert "40 attempts expected, 40 spent (+0 %)" in lines[0]
    assert "200 tokens expected, 200 spent (+0 %); 0.20 usd expected, 0.20 spent (+0 %)" in lines[2]
    assert lines[1] == "forecast, refine: nothing expected, nothing spent"


def test_a_comparison_can_be_made_in_the_folder_of_its_forecast(tmp_path):
    config, out = comparison(task_file(tmp_path, length=2), seeds=[0]), tmp_path / "out"
    forecasting.forecast_of(config, out, True)
    compare(config, out, quiet=True)
    assert "60 attempts expected, 120 spent (-50 %)" not in "\n".join(forecasting.forecast_error(out))
    assert "120 attempts expected, 120 spent (+0 %)" in forecasting.forecast_error(out)[0]
    with pytest.raises(AgentevolveError, match="a forecast is made before the run"):
        forecasting.forecast_of(config, out, True)


def test_a_damaged_forecast_is_one_line(tmp_path):
    (tmp_path / FILE).write_text("{}")
    with pytest.raises(AgentevolveError, match="not a forecast; delete it"):
        error_of(tmp_path, [])


def test_what_a_run_has_spent_is_told_by_phase(tmp_path):
    from worlds import Metered, new_run, use_model

    from agentevolve.act.asking import ask
    from agentevolve.act.rollout import rollout
    from agentevolve.policy import Policy

    run = new_run(tmp_path / "run", workers=1)
    policy = use_model(run, Metered(run, ScriptedModel(lambda messages, choices: "wait")), Policy(model="random"))
    rollout(policy, make_tasks(2, length=2, limit=3), run, phase="1/acquire")
    rollout(policy, make_tasks(1, length=2, limit=3, split="val"), run, phase="1/val/learnt")
    ask(policy, run, "q", "Is it?")
    run.close()
    found = spending(run)
    assert {phase: (one.attempts, one.tokens) for phase, one in found.items()} == {
        "acquire": (2, 60),
        "refine": (0, 10),
        "update": (0, 0),
        "evaluate": (1, 30),
    }
    assert json.loads(Forecast(probed=1, methods={"m": found}).model_dump_json())["methods"]["m"]["acquire"]["tokens"] == 60
