"""Harbor's own validator and models take the trajectories that we write.

Harbor wants Python 3.12, so it is no extra: this runs where somebody installed it beside us
(pip install harbor==0.25.0, in an environment of its own; the models alone need nothing but pydantic: --no-deps).
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("harbor")
from harbor.models.trajectories import Trajectory
from harbor.utils.trajectory_validator import TrajectoryValidator
from lives import lived

from agentevolve.doors.exports import Wanted, export


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    place = tmp_path_factory.mktemp("harbor")
    export(lived(place / "r"), place / "out", "atif", Wanted())
    return sorted((place / "out").iterdir())


def test_every_trajectory_is_valid(files):
    assert len(files) == 8
    judge = TrajectoryValidator()
    assert {path.name: judge.get_errors() for path in files if not judge.validate(path)} == {}


def test_its_command_line_says_so_too(files):
    command = [sys.executable, "-m", "harbor.utils.trajectory_validator", str(files[0])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, "valid" in done.stdout) == (0, True), done.stderr


def test_its_models_lose_nothing_of_one(files):
    for path in files:
        told = json.loads(path.read_text())
        assert Trajectory.model_validate(told).to_json_dict() == told
