"""Parts that several tests need and that take a while to come by."""

import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from agentevolve.cli.main import main
from agentevolve.local import catalog

if find_spec("hypothesis"):  # a busy machine is no failure; clients that are not ours have environments without it
    from hypothesis import HealthCheck, settings

    settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("house")
pytest.register_assert_rewrite("faulty")  # its checks tell what they compared

KEY = tempfile.TemporaryDirectory(prefix="agentevolve-key-")  # memories are signed with a key of the tests' own
os.environ["AGENTEVOLVE_KEY_FILE"] = str(Path(KEY.name) / "memory.key")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The GGUF that `local/smollm2-135m` is served from, fetched into the user's cache at the first use."""
    return catalog.serving_gguf(catalog.resolve("smollm2-135m"))


@pytest.fixture
def ask(tmp_path, monkeypatch, capsys):
    """Run one command line in an empty folder; its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()

    def asked(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["agentevolve", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return asked
