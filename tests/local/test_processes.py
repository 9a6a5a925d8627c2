"""Two processes that train one adapter together learn what one learns alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

from agentevolve.local import processes
from agentevolve.local.adapter import LoraSettings, read_adapter
from agentevolve.protocols import AgentevolveError

SHARED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import tiny
from agentevolve.local.adapter import LoraSettings
folder, out, settings = Path(sys.argv[1]), Path(sys.argv[2]), LoraSettings.model_validate_json(sys.argv[3])
worth = [n - 3.5 if settings.objective == "grpo" else 1.0 for n in range(8)]
rows = [tiny.example(f"Where {n}?", "north", "take" * (n + 1), weight=worth[n]) for n in range(8)]
tiny.train(folder, rows, out, settings, seed=1, base="tiny")
"""
LAUNCH = "launch --cpu --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0 --num_processes"


def trained(place: Path, folder: Path, name: str, settings: LoraSettings, number: int) -> subprocess.CompletedProcess:
    """Train in so many processes, as accelerate starts them."""
    script = place / "train.py"
    script.write_text(SHARED)
    launch = [str(Path(sys.executable).parent / "accelerate"), *LAUNCH.split(), str(number)] if number > 1 else [sys.executable]
    words = [*launch, str(script), str(folder), str(place / name), settings.model_dump_json()]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, env=env, capture_output=True, text=True, cwd=place)


@pytest.mark.parametrize("changes", [{"kl": 0.1}, {"objective": "grpo"}], ids=["sft", "grpo"])
def test_two_processes_learn_what_one_learns(tmp_path, changes):
    torch.set_num_threads(1)
    folder = tiny.folder(tmp_path / "tiny")
    settings = LoraSettings(rank=4, epochs=2, batch_size=4, learning_rate=5e-3).model_copy(update=changes)
    for number, name in ((1, "alone"), (2, "together")):
        done = trained(tmp_path, folder, name, settings, number)
        assert done.returncode == 0, done.stderr[-3000:]
    alone, together = (read_adapter(tmp_path / name) for name in ("alone", "together"))
    assert (together.steps, together.tokens) == (alone.steps, alone.tokens) == (4, alone.tokens)
    assert together.loss_last == pytest.approx(alone.loss_last, rel=2e-3)
    from safetensors.torch import load_file

    one, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("alone", "together"))
    moved = max(tensor.abs().max() for key, tensor in one.items() if ".lora_B." in key)
    assert moved > 1e-3
    assert all((one[key] - other[key]).abs().max() < 0.02 * moved for key in one)
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_what_cannot_be_shared_is_refused(monkeypatch):
    processes.check_alone("run")
    assert processes.share_of(3) == 3
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(AgentevolveError, match="run is for one process: 2 of them would each do the whole of it"):
        processes.check_alone("run")
    with pytest.raises(AgentevolveError, match="batch_size: 3 rows cannot be shared out evenly among 2 processes"):
        processes.share_of(3)
