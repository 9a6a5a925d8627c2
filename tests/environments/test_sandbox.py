"""The sandbox: an attempt to get out, or to forge the verdict, is a wrong answer, and does no harm."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from agentevolve.environments.support.sandbox import walls as _walls
from agentevolve.environments.support.sandbox.judge import START, Judged, SandboxBroken, _asked, _files, check_walls, judge
from agentevolve.environments.support.sandbox.plain import packed, shown, unpacked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")

PROMPT = 'def f(x):\n    """Add one."""\n'
RIGHT = "    return x + 1\n"
TESTS = "SECRET = 'the tests know this'\ndef check(candidate):\n    for i in range(5):\n        assert candidate(i) == i + 1\n"


def run(code: str, tests: str = TESTS, seconds: int = 2) -> Judged:
    return judge(PROMPT, code, "f", RIGHT, tests, seconds=seconds)


def body(code: str) -> Judged:
    """What comes of a function with this body, which then returns the right answer."""
    return run("".join(f"    {line}\n" for line in code.splitlines()) + RIGHT)


def alive(process: int | str) -> bool:
    """Whether there is such a process; a dead one that nobody has asked about is none."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes() != b""
    except OSError:
        return False


def ours() -> list[int]:
    """The keepers and candidates of this process that are alive."""
    mark = f'"parent": {os.getpid()},'.encode()
    processes = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [one for one in processes if alive(one) and mark in read(one)]


def none_left() -> bool:
    """Whether no keeper and no candidate stays: one that died with its keeper may need a moment to be gone."""
    until = time.monotonic() + 10
    while ours() and time.monotonic() < until:
        time.sleep(0.01)
    return not ours()


def read(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    "code",
    [
        RIGHT,
        "return x + 1",
        "y = x\n    return y + 1",
        "if x:\n    return x + 1\nreturn 1",
        "def f(x):\n    return x + 1",
        "import math\n\ndef helper(x):\n    return x\n\ndef f(x: int) -> int:\n    return helper(x) + 1",
        "from __future__ import annotations\ndef f(x: Unknown):\n    return x + 1",
        "    print('x' * 1_000_000)\n    import sys; print('x', file=sys.stderr)\n    return x + 1",
        "    import ssl, hashlib, decimal, sqlite3, zlib, bz2, lzma, asyncio, multiprocessing\n    return x + 1",
    ],
)
def test_right_code_passes_in_every_form(code):
    assert run(code) == Judged(True, "", check_walls())


def test_the_needed_walls_stand():
    walls = check_walls()
    assert {"limits", "capabilities", "seccomp", "python"} <= set(walls)
    assert {"jail", "landlock", "user"} & set(walls)


EVERYWHERE = "import os\nfor n in range(64):\n    try: os.write(n, {})\n    except OSError: pass\n"
# attempts to pass without being right, and what is said of them
FORGED = {
    "import sys; sys.exit(0)": "SystemExit: 0",
    "import os; os._exit(0)": "it ended by itself (0)",
    "raise KeyboardInterrupt": "KeyboardInterrupt",
    "print('passed'); import os; os.write(1, b'passed'); return True": "which returned True",
    "class Equal(int):\n    __eq__ = lambda *_: True\nreturn Equal(7)": "which returned 7",
    "class Equal:\n    __eq__ = lambda *_: True\nreturn Equal()": "which returned an object",
    "import builtins\nbuiltins.AssertionError = type('Harmless', (), {})\nreturn 0": "which returned 0",
    "import sys\nsys.modules['__main__'].judge = lambda *_: {'passed': True}\nreturn 0": "which returned 0",
    "import sys\nf = sys._getframe()\nwhile f: f.f_globals['check'] = print; f = f.f_back\nreturn 0": "which returned 0",
    EVERYWHERE.format("""b'{"passed": true, "why": ""}\\n'"""): "cannot be read",
    EVERYWHERE.format("b'x' * 5_000_000"): "returned too much",
    "import os; os.closerange(0, 64)\nwhile True: pass": "it answers no more",
    "return '\\x00'": r"which returned '\x00'",
    "return '\\ud800'": r"which returned '\ud800'",
    "return 1 << 1_000_000": "something long",
    "return 'x' * 5_000_000": "it returned too much",
    "y = []\ny.append(y)\nreturn y": "RecursionError",
    "return (i for i in range(1 << 60))": "iterator",
    "return float('nan')": "which returned nan",
    "raise StopIteration": "StopIteration",
    "class Odd(Exception):\n    __str__ = None\nraise Odd": "Odd",
}


@pytest.mark.parametrize("code", FORGED, ids=lambda code: code[:40])
def test_a_forged_success_is_a_failure(code):
    judged = body(code)
    assert not judged.passed
    assert FORGED[code] in judged.why


@pytest.mark.parametrize(
    "code",
    ["", "\x00", "# \ud800", "(" * 50_000, "def f(:", "import os; os._exit(0)", "f = 5", "del f", "raise SystemExit"],
)
def test_code_that_cannot_be_loaded_fails(code):
    judged = run(f"{code}\ndef f(x): return x + 1\n{code}")
    assert judged.passed == (not code)
    assert judged.why.startswith("" if not code else "in f(0): " if code == "f = 5" else "when it was loaded: ")


# attempts to reach something
REACHES = {
    "open('/etc/shadow').read()": "Error",
    "open('/etc/passwd').read()": "Error",
    "import os; os.listdir('/')": "PermissionError",
    "import os; os.listdir(os.path.expanduser('~root'))": "Error",
    "open('/proc/self/environ').read()": "Error",
    "open(f'/proc/{__import__(\"os\").getppid()}/mem', 'rb').read(1)": "Error",
    "open('/proc/1/cmdline').read()": "Error",
    "open('here', 'w')": "PermissionError",
    "open('/tmp/here', 'a')": "Error",
    "import tempfile; tempfile.mkdtemp()": "Error",
    "import os; os.unlink(os.__file__)": "PermissionError",
    "import os; os.rename(os.__file__, '/x')": "PermissionError",
    "import os; os.chmod('/', 0o777)": "PermissionError",
    "import os; os.mkfifo('/x')": "PermissionError",
    "import os; os.symlink('/', '/x')": "PermissionError",
    "import socket; socket.socket()": "not in here",
    "import socket; socket.create_connection(('127.0.0.1', 80))": "not in here",
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1')": "not in here",
    "import os; os.kill(os.getppid(), 9)": "not in here",
    "import os; os.killpg(0, 9)": "not in here",
    "import os; os.fork()": "not in here",
    "import os; os.execv('/bin/sh', ['sh'])": "not in here",
    "import os; os.system('true')": "not in here",
    "import subprocess; subprocess.run(['true'])": "not in here",
    "import os; os.posix_spawn('/bin/sh', ['sh'], {})": "not in here",
    "import multiprocessing as m; m.Process(target=print).start()": "PermissionError",
    "import os\nif not os.fork():\n    os.setsid()\n    if not os.fork():\n        while True: pass": "not in here",
    "while True:\n    __import__('os').fork()": "not in here",
    "import threading; threading.Thread(target=print).start()": "can't start new thread",
    "import concurrent.futures as c; c.ThreadPoolExecutor().submit(print)": "can't start new thread",
    "import ctypes; ctypes.CDLL(None)": "not in here",
    "import ctypes; ctypes.pythonapi.PyErr_SetNone": "not in here",
    "import ctypes; ctypes.string_at(0)": "not in here",
    "import faulthandler; faulthandler._read_null()": "it ended by itself (-11)",
    "import os; os.setuid(0)": "PermissionError",
    "import os; os.chroot('/')": "PermissionError",
    "import signal; signal.setitimer(signal.ITIMER_REAL, 1)": "not permitted",
    "import resource as r, os; r.prlimit(os.getppid(), r.RLIMIT_CPU, (0, 0))": "PermissionError",
    "import resource as r; r.setrlimit(r.RLIMIT_CPU, (99, 99))": "Error",
    "import fcntl; fcntl.fcntl(0, fcntl.F_SETOWN, 1)": "PermissionError",
}


@pytest.mark.parametrize("code", REACHES)
def test_nothing_can_be_reached(code):
    judged = body(code)
    assert not judged.passed
    assert REACHES[code] in judged.why
    assert none_left()


# attempts to use things up
HOGS = {
    "while True: pass": "it took too long",
    "import time; time.sleep(1000)": "it took too long",
    "import signal\nfor n in {*range(1, 32)} - {9, 19}: signal.signal(n, signal.SIG_IGN)\nwhile True: pass": "it took too long",
    "y = [0] * (1 << 40)": "MemoryError",
    "y = 'x' * 1000\nwhile True: y += y": "MemoryError",
    "return f(x)": "RecursionError",
    "10 ** 10 ** 10": "it took too long",
    "while True: print('x' * 1_000_000)": "it took too long",
    "import os\nwhile True: os.write(2, b'x' * 1_000_000)": "it took too long",
    "y = [open(__import__('os').__file__) for _ in range(1000)]": "Too many open files",
}


@pytest.mark.parametrize("code", HOGS)
def test_nothing_can_be_used_up(code):
    started, before = time.monotonic(), os.times()
    judged = run("".join(f"    {line}\n" for line in code.splitlines()) + RIGHT, seconds=1)
    assert not judged.passed
    assert HOGS[code] in judged.why
    assert time.monotonic() - started < 20
    assert os.times().children_user - before.children_user < 4
    assert none_left()


LOOKS_AROUND = """
import gc, os, sys

def f(x):
    frame, seen = sys._getframe(), [o for o in gc.get_objects() if isinstance(o, (dict, list, tuple))]
    while frame:
        seen += [frame.f_globals, frame.f_locals]
        frame = frame.f_back
    values = [value for one in seen for value in (one.values() if isinstance(one, dict) else one)]
    secret = any("know" + "s" in value for value in values if isinstance(value, str) and "SECRET" in value)
    raise Exception(f"{sorted(os.environ)} {secret} {sum(map(is_open, range(3, 1024)))}")

def is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
"""


def test_the_environment_is_empty_and_the_tests_are_nowhere_near(monkeypatch):
    monkeypatch.setenv("A_SECRET_OF_OURS", "1")
    assert "Exception: [] False 2" in run(LOOKS_AROUND).why, "the two pipes are open and nothing else"
    held = "    SECRET = 'SECRET of which everybody knows'\n    return f.__globals__['look'](x)\n"
    found = LOOKS_AROUND.replace("def f(x)", "def look(x)") + f"def f(x):\n{held}"
    assert "Exception: [] True 2" in run(found).why, "the search finds what is there"


def test_other_peoples_packages_are_hidden():
    library = os.path.dirname(os.__file__)
    for place in (f"{library}/site-packages/README.txt", pytest.__file__, __file__):
        assert "Error" in body(f"open({place!r})").why
    assert "Exception: []" in body("import sys; raise Exception([p for p in sys.path if 'packages' in p])").why


def test_values_travel_as_data():
    whole = [None, True, 1, -(1 << 80), 0.1, float("inf"), 1j, "\ud800", b"\x00", [1, (2, {3}), frozenset({4})], {(1, "a"): [{}]}]
    assert unpacked(json.loads(json.dumps(packed(whole)))) == whole
    again = unpacked(packed([iter([1, 2]), range(3), {}.keys(), object()]))
    assert [list(one) for one in again[:3]] == [[1, 2], [0, 1, 2], []]
    assert again[3] != again[3].__class__()
    unhashable = ["list", []]
    for bad in (
        [],
        ["no such word"],
        ["int", "ten"],
        ["int"],
        ["list", 5],
        ["dict", [[unhashable, 1]]],
        ["set", [unhashable]],
        [["a"]],
    ):
        with pytest.raises((ValueError, TypeError, LookupError)):
            unpacked(bad)
    assert shown([object(), "a\nb"]) == "<object object at 0x…>, 'a\\nb'"


def test_the_same_code_gets_the_same_verdict():
    draws = "    import random\n    return [random.random(), hash('a'), list({'a', 'b', 'c', 'd'})]\n"
    assert run(draws).why == run(draws).why != ""
    tests = "import random\ndef check(candidate):\n    assert candidate(random.random()) is None\n"
    assert run(RIGHT, tests).why == run(RIGHT, tests).why != ""


def test_tests_that_stumble_fail_the_code_and_cannot_swallow_a_lost_answer():
    stumbled = run("    return None", "def check(c):\n    assert c(1) < 2")
    assert stumbled.why == "a test failed after f(1), which returned None: TypeError"
    swallow = "def check(c):\n    try:\n        c(1)\n    except Exception:\n        pass\n"
    assert not run("    import os; os._exit(0)", swallow).passed


def test_many_at_once():
    found = []
    threads = [threading.Thread(target=lambda n=n: found.append((n, run(f"    return x + {n % 2}").passed))) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(n, bool(n % 2)) for n in range(12)]
    assert none_left()


def test_the_sandbox_goes_with_its_process():
    code = (
        f"import sys, threading; sys.path.insert(0, {str(Path(__file__).parent)!r}); from test_sandbox import *\n"
        "threading.Thread(target=run, args=('    while True: pass',), kwargs={'seconds': 60}, daemon=True).start()\n"
        "while len(ours()) < 2: time.sleep(0.05)\n"
        "print(*ours(), flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    processes = parent.stdout.readline().split()
    assert len(processes) == 2
    parent.kill()
    parent.communicate()
    until = time.monotonic() + 10
    while any(map(alive, processes)):
        assert time.monotonic() < until
        time.sleep(0.05)


MANY = (
    "    class Many(set):\n        def __iter__(self):\n            return iter(range(0, {0} * 60_000, {0}))\n    return Many()\n"
)
# what the code returns, and how the tests work with it
ENDLESS = {
    "elements that all hash alike": (MANY.format((1 << 61) - 1), "assert candidate(1) == {2}"),
    "a power": ("    return 1 << 40\n", "assert 3 ** candidate(1) == 9"),
    "a loop": ("    return 1 << 60\n", "for _ in range(candidate(1)): pass"),
    "a loop that catches everything": (
        "    return 1 << 60\n",
        "n = candidate(1)\n    while n:\n        try: n -= 1\n        except BaseException: pass",
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_an_answer_that_is_endless_to_work_with_is_a_wrong_one(name):
    code, test = ENDLESS[name]
    judged = run(code, f"def check(candidate):\n    {test}\n", seconds=1)
    assert judged == Judged(False, "its answer is endless to work with", check_walls())
    assert none_left()


def test_an_answer_that_takes_too_much_memory_to_work_with_is_a_wrong_one():
    judged = run("    return 3 << 30\n", "def check(candidate):\n    assert bytes(candidate(1))\n")
    assert (judged.passed, judged.why) == (False, "a test failed after f(1), which returned 3221225472: MemoryError")


def test_a_keeper_that_gives_no_verdict_is_no_wrong_answer():
    with pytest.raises(SandboxBroken, match="no verdict"):
        _asked("not JSON", "{}", 10)
    assert none_left()


# each wall by itself, so that none hides a hole in another


ALONE = """
import ctypes, json, os, resource, socket, subprocess, sys, threading
from agentevolve.environments.support.sandbox import walls as w
folders, readable, hidden = json.loads(sys.argv[1])
try:
    {wall}
    {attempt}
    said = "done"
except Exception as error:
    said = type(error).__name__
os.write(1, said.encode())
"""


def behind(wall: str, attempt: str) -> str:
    """What becomes of an attempt in a process with one wall: "done", the name of an exception, or nothing if it is killed."""
    code = START.split("from agentevolve")[0] + ALONE.format(wall=wall, attempt=attempt)
    command = [sys.executable, "-S", "-s", "-P", "-c", code, str(Path(_walls.__file__).parent), json.dumps(_files())]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60).stdout


SECCOMP = "w._prctl(38, 1); w._filter_calls()"


@pytest.mark.parametrize(
    "attempt",
    [
        "os.fork()",
        "socket.socket()",
        "socket.socketpair()",
        "os.kill(os.getppid(), 0)",
        "os.kill(os.getpid(), 0)",
        "open('/tmp/never', 'w')",
        "os.open('/tmp', os.O_TMPFILE | os.O_RDWR)",
        "os.open(os.__file__, os.O_RDONLY | os.O_TRUNC)",
        "os.unlink('/never')",
        "os.rename('/never', '/never2')",
        "os.mkdir('/never')",
        "os.chmod('/', 0o755)",
        "os.setsid()",
        "os.setuid(os.getuid())",
        "os.memfd_create('x')",
        "os.eventfd(0)",
        "os.pipe()",
        "os.dup(0)",
        "os.pidfd_open(os.getpid())",
        "os.execv(sys.executable, ['x'])",
        "subprocess.run(['true'])",
        "resource.prlimit(os.getppid(), resource.RLIMIT_CPU)",
        "os.sched_setaffinity(0, {0})",
        "os.nice(1)",
    ],
)
def test_seccomp_alone_refuses(attempt):
    assert behind("pass", "pass") == "done"
    assert behind(SECCOMP, attempt) == "PermissionError"


def test_seccomp_alone_lets_read_and_compute():
    assert behind(SECCOMP, "open(os.__file__).read(); import decimal; [0] * 10**7; __import__('time').sleep(0.01)") == "done"
    assert behind(SECCOMP, "threading.Thread(target=print).start()") == "RuntimeError"
    trace = "assert ctypes.CDLL(None, use_errno=True).ptrace(16, os.getppid(), 0, 0) == -1 and ctypes.get_errno() == 1"
    assert behind("pass", "ctypes.CDLL(None)") == "done"
    assert behind(SECCOMP, trace) == "done"


WALLS = check_walls() if sys.platform == "linux" else ()
needs_landlock = pytest.mark.skipif("landlock" not in WALLS, reason="no Landlock here")
needs_jail = pytest.mark.skipif("jail" not in WALLS, reason="no namespaces here")


@needs_landlock
def test_landlock_alone_hides_files():
    wall = "w._landlock(folders, readable)"
    assert behind(wall, "open(os.__file__).read(); import decimal, ssl; os.listdir(os.path.dirname(os.__file__))") == "done"
    for path in ("/etc/passwd", "/proc/self/environ", pytest.__file__, __file__):
        assert behind("pass", f"open({path!r})") == "done"
        assert behind(wall, f"open({path!r})") == "PermissionError"
    for attempt in ("os.listdir('/')", "os.listdir('/etc')", "open('/tmp/never', 'w')", "os.mkdir('/tmp/never')"):
        assert behind(wall, attempt) == "PermissionError"


@needs_jail
def test_the_jail_alone_hides_files_and_the_network():
    wall = "w._jail(folders, hidden)"
    assert behind(wall, "open(os.__file__).read(); import decimal, ssl") == "done"
    for path in ("/etc/passwd", "/proc/self/environ", "/dev/null", pytest.__file__, __file__):
        assert behind("pass", f"open({path!r})") == "done"
        assert behind(wall, f"open({path!r})") == "FileNotFoundError"
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"socket.create_connection({server.getsockname()!r})"
        assert behind("pass", connect) == "done"
        assert behind(wall, connect) == "OSError"


@pytest.mark.skipif("user" not in WALLS, reason="not root, or nobody could not read the library")
def test_root_becomes_nobody():
    ids = "import os; raise Exception(os.getuid(), os.geteuid(), os.getgid(), os.getegid())"
    assert "Exception: (65534, 65534, 65534, 65534)" in body(ids).why


def test_capabilities_alone_are_dropped():
    held = "print(*[line.split()[1] for line in open('/proc/self/status') if line[:6] in ('CapEff', 'CapPrm')], flush=True)"
    assert behind("w._drop_capabilities()", held) == f"{'0' * 16} {'0' * 16}\ndone"


def test_limits_alone_hold(tmp_path):
    wall = "w._limit(w.Limits(1, 300 << 20, 32))"
    assert behind(wall, "bytearray(1 << 30)") == "MemoryError"
    assert behind(wall, "[open(os.__file__) for _ in range(64)]") == "OSError"
    write = f"__import__('signal').signal(25, 1); open({str(tmp_path / 'x')!r}, 'wb', 0).write(b'x')"
    assert behind("pass", write) == "done"
    assert behind(wall, write) == "OSError"
    assert behind(wall, "while True: pass") == ""


def test_the_numbers_of_the_system_calls_are_the_kernels():
    headers = [Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), Path("/usr/include/asm-generic/unistd.h")]
    if not all(header.exists() for header in headers):
        pytest.skip("needs the kernel's headers for x86_64")
    for column, header in enumerate(headers):
        known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text()))
        known.setdefault("newfstatat", known.get("fstatat", ""))
        for name, numbers in {**_walls.CALLS, "openat": _walls.OPENAT}.items():
            assert str(numbers[column] if numbers[column] is not None else None) == known.get(name, "None"), name


def test_unknown_processors_are_refused():
    with pytest.raises(OSError, match="x86_64"):
        list(_walls._program("riscv64"))


def test_a_stopped_candidate_counts_as_too_slow():
    found = []
    thread = threading.Thread(target=lambda: found.append(run("    while True: pass", seconds=1)))
    thread.start()
    while len(ours()) < 2:
        time.sleep(0.01)
    time.sleep(0.3)  # it is at work
    os.kill(max(ours()), signal.SIGSTOP)
    thread.join(30)
    assert not found[0].passed
    assert "it took too long" in found[0].why
    assert none_left()


def test_a_candidate_stopped_before_its_walls_stand_is_killed():
    found = []

    def asked() -> None:
        try:
            run("    while True: pass", seconds=1)
        except SandboxBroken as error:
            found.append(str(error))

    thread = threading.Thread(target=asked)
    thread.start()
    while len(processes := ours()) < 2:
        time.sleep(0.001)
    os.kill(max(processes), signal.SIGSTOP)
    thread.join(30)
    assert none_left()
    assert found in (["no verdict (exit 1): agentevolve.environments.support.sandbox.keeper.Failed: it took too long"], [])
