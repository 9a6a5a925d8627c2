"""Bars on a terminal: two phases at a time are shown below each other, in one display; without a terminal a line each."""

import os
import pty
import re
import subprocess
import sys

from agentevolve.run.progress import progress

TWO = """
import threading
from agentevolve.run.progress import progress

def phase(name, begun, over):
    with progress(name, 3) as advance:
        for _ in range(3):
            advance("")
        begun.set()
        over.wait(10)

first, second, over = threading.Event(), threading.Event(), threading.Event()
told = ("1/val/base", first, second), ("2/acquire, ahead", second, over)
threads = [threading.Thread(target=phase, args=one) for one in told]
threads[0].start()
first.wait(10)
threads[1].start()  # while the first is shown; it stays to the end
threads[0].join()
with progress("1/val/memory", 2) as advance:
    advance("")
over.set()
threads[1].join()
with progress("2/val/memory", 1) as advance:  # alone again
    advance("")
"""


def test_two_phases_at_a_time_have_a_line_each(tmp_path):
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", TWO], stderr=theirs, cwd=tmp_path, env=environment)
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        said += part
    os.close(ours)
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode())
    # the last time that the three of the first display were drawn
    last = text.rindex("1/val/base")
    shown = [line.strip() for line in re.split(r"[\r\n]+", text[last:]) if line.strip()]
    assert [line.split("  ")[0].split(" ━")[0].strip() for line in shown[:3]] == [
        "1/val/base",
        "2/acquire, ahead",
        "1/val/memory",
    ]
    assert [re.search(r"\d/\d(?= )", line.split("━")[-1])[0] for line in shown[:3]] == ["3/3", "3/3", "1/2"]
    assert "Traceback" not in text and "2/val/memory" in text[last:]


def test_without_a_terminal_each_says_how_it_began_and_ended(capsys):
    with progress("one", 2) as advance, progress("two, ahead", 1) as other:
        advance("")
        other("well")
    assert [line.split(" done")[0] for line in capsys.readouterr().err.splitlines()] == [
        "one (0/2) …",
        "two, ahead (0/1) …",
        "two, ahead (1/1)",
        "one (2/2)",
    ]
