"""One writer a folder, whoever reads."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agentevolve.protocols import AgentevolveError
from agentevolve.run.folder import JOURNAL, Run, read_run
from agentevolve.run.lock import lock

HOLDER = """
import sys, time
from pathlib import Path
from agentevolve.run.folder import Run
run = Run(Path(sys.argv[1]))
run.once("fact", lambda: 1)
print("open", flush=True)
sys.stdin.read()
"""

# as root, permissions bind nobody: the effective user is another one, and what it needs is loaded before
UNPRIVILEGED = """
import os, sys, tempfile
from pathlib import Path
{imports}
if os.geteuid() == 0:
    os.seteuid(65534)
{code}
"""


def holder(folder: Path) -> subprocess.Popen:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "open\n"
    return child


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def as_another(folder: Path, imports: str, code: str) -> str:
    """What a process prints, run in `folder`, in which it may write nothing."""
    script = UNPRIVILEGED.format(imports=imports, code=code)
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_in_use_is_refused_naming_the_process_and_can_be_read_meanwhile(tmp_path):
    child = holder(tmp_path / "run")
    try:
        before = tree(tmp_path)
        with pytest.raises(AgentevolveError, match=rf"run: in use by process {child.pid} \(.*python.* -c ") as caught:
            Run(tmp_path / "run")
        assert len(str(caught.value)) < 200 + len(str(tmp_path)) + 100
        assert read_run(tmp_path / "run").facts == {"fact": 1}
        assert tree(tmp_path) == before
    finally:
        child.communicate("")
    Run(tmp_path / "run").close()


def test_a_killed_process_holds_nothing(tmp_path):
    child = holder(tmp_path / "run")
    child.send_signal(signal.SIGKILL)
    child.communicate()
    run = Run(tmp_path / "run")
    assert run.facts == {"fact": 1}
    run.close()
    assert [path.name for path in (tmp_path / "run").iterdir()] == [JOURNAL]


def test_two_runs_of_one_folder_in_one_process_are_refused_and_one_after_the_other_is_not(tmp_path):
    run = Run(tmp_path / "run")
    with pytest.raises(AgentevolveError, match=rf"run: in use by this process \({os.getpid()}\) already"):
        Run(tmp_path / "run")
    run.once("fact", lambda: 1)
    run.close()
    run.close()
    Run(tmp_path / "run").close()
    assert run.facts == {"fact": 1}


def test_a_run_that_nobody_holds_any_more_locks_nothing(tmp_path):
    Run(tmp_path).once("fact", lambda: 1)
    Run(tmp_path).close()


def test_a_run_that_came_to_nothing_leaves_no_folder(tmp_path):
    Run(tmp_path / "run").close()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    Run(tmp_path / "there").close()
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_run_that_cannot_be_read_leaves_no_lock(tmp_path):
    (tmp_path / JOURNAL).write_text("{oh no\n")
    for use in (Run, read_run):
        with pytest.raises(AgentevolveError, match=rf"{JOURNAL}:1: not a journal line"):
            use(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [JOURNAL]


@pytest.mark.parametrize("close", [False, True])
def test_what_is_closed_or_only_read_takes_nothing_more(tmp_path, close):
    run = Run(tmp_path)
    run.once("fact", lambda: 1)
    run.close()
    run = run if close else read_run(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(AgentevolveError, match="cannot write: the run was closed, or opened for reading only"):
        run.once("another", lambda: 2)
    assert tree(tmp_path) == before and run.facts == {"fact": 1}


def test_a_run_that_is_not_there_is_read_as_empty_and_not_made(tmp_path):
    assert read_run(tmp_path / "run").facts == {}
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_which_nothing_can_be_written_can_be_read_and_says_so_to_a_writer(tmp_path):
    run = Run(tmp_path)
    run.once("fact", lambda: 1)
    run.close()
    tmp_path.chmod(0o555)
    imports = "from agentevolve.run.folder import Run, read_run; from agentevolve.protocols import AgentevolveError"
    code = """
print(read_run(Path()).facts)
try:
    Run(Path())
except AgentevolveError as error:
    print(error)
"""
    assert as_another(tmp_path, imports, code) == "{'fact': 1}\n.: cannot write: Permission denied\n"


def test_a_journal_that_may_not_be_read_is_one_line(tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / JOURNAL).touch(0o000)
    imports = "from agentevolve.run.folder import read_run; from agentevolve.protocols import AgentevolveError"
    code = """
try:
    read_run(Path())
except AgentevolveError as error:
    print(error)
"""
    assert as_another(tmp_path, imports, code) == f"{JOURNAL}: cannot read: Permission denied\n"


@pytest.mark.parametrize("text", ["apt-get install\n", "1 mutex\n", "\x00"])
def test_somebody_elses_file_of_that_name_is_left_alone(tmp_path, text):
    (tmp_path / "lock").write_text(text)
    with pytest.raises(AgentevolveError, match="lock: in the way: a file of somebody else's"):
        Run(tmp_path)
    assert (tmp_path / "lock").read_text() == text


@pytest.mark.parametrize("text", ["", "1", "99999999999999999999"])
def test_what_a_killed_process_left_is_taken_over(tmp_path, text):
    (tmp_path / "lock").write_text(text)
    run = Run(tmp_path)
    assert (tmp_path / "lock").read_text() == str(os.getpid())
    run.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("made", ["file", "file in the way", "link"])
def test_what_is_no_folder_is_one_line_and_left_alone(tmp_path, made):
    (tmp_path / "precious").write_text("x")
    folder = {"file": tmp_path / "precious", "file in the way": tmp_path / "precious" / "run", "link": tmp_path}[made]
    if made == "link":  # whoever made the folder would have us write elsewhere
        (tmp_path / "lock").symlink_to("precious")
    with pytest.raises(AgentevolveError, match="cannot write: "):
        lock(folder)
    assert (tmp_path / "precious").read_text() == "x"


FULL = """
import resource, signal, sys
from pathlib import Path
from agentevolve.run.folder import Run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
Run(Path(sys.argv[1]))
"""


def test_on_a_full_disk_there_is_no_run_and_no_folder(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path / "run")], capture_output=True, text=True)
    assert "run: cannot write: File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


RACER = """
import sys
from pathlib import Path
from agentevolve.protocols import AgentevolveError
from agentevolve.run.lock import lock
folder, held = Path(sys.argv[1]), 0
while held < 150:
    try:
        with lock(folder):
            (folder / "only").touch(exist_ok=False)
            (folder / "only").unlink()
            held += 1
    except AgentevolveError as error:
        assert "in use by" in str(error), error
"""


def test_of_many_that_come_and_go_there_is_never_more_than_one(tmp_path):
    racers = [subprocess.Popen([sys.executable, "-c", RACER, str(tmp_path)], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [racer.communicate(timeout=120)[1] for racer in racers] == ["", "", ""]
