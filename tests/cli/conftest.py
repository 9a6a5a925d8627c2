"""What the tests of the command line ask with."""

import sys

import pytest

from agentevolve.cli.main import main


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
