"""The real commands, killed and interrupted beside a backend that misbehaves: nothing is lost, doubled or paid for twice."""

import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from faulty import (
    ANSWERED,
    COLD,
    COMMANDS,
    FIVE_PERCENT,
    LIMIT,
    WORKERS,
    Asked,
    Messages,
    Server,
    again,
    asked_again,
    learn,
    makings,
    outcomes,
    prepared,
    settled,
)

from agentevolve.cli.main import main

PRELOADED = [
    "litellm",
    "openai.resources.chat",
    "h2.connection",
    "chromadb",
    "langgraph.graph",
    "agentevolve.loop.compare",
    "worlds",
]
FEW_HANG = FIVE_PERCENT | {"hang": 0.01}  # each costs a cold process's whole patience


def played(folder: Path, words: tuple[str, ...]) -> None:
    """What is killed: one command line, from its first word to its exit code."""
    os.chdir(folder)
    sys.argv = ["agentevolve", *words]
    sys.stdout = sys.stderr = open("said", "a")  # noqa: SIM115
    main()


def start(folder: Path, words: tuple[str, ...]) -> multiprocessing.Process:
    """The command line in a process of its own, which finds all that is slow to import imported."""
    context = multiprocessing.get_context("forkserver")
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it is fetched from the network
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=played, args=(folder, words))
    process.start()
    return process


def through(folder: Path, words: tuple[str, ...]) -> None:
    """Let the command line run to its end."""
    process = start(folder, words)
    process.join()
    assert process.exitcode == 0, (folder / "said").read_text()


def slowly(messages: Messages) -> str:
    """An answer that takes a little while, so that there is a middle to be killed in."""
    time.sleep(0.01)
    return learn(messages)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Callable[[str], tuple[dict, int]]:
    """What a command comes to when nothing disturbs it, and how many answers it takes."""

    @cache
    def known(command: str) -> tuple[dict, int]:
        folder = tmp_path_factory.mktemp(command)
        with Server(slowly) as server:
            through(folder, prepared(folder, server, **COLD)[command])
            settled(folder, server)
        return outcomes(folder), len(server.served)

    return known


# --- kill -9 ---


def killed(folder: Path, words: tuple[str, ...], server: Server, wait: int, pause: float) -> bool:
    """Let the command be answered so many more times, and a moment, and kill it; False if it was through before."""
    process, before = start(folder, words), len(server.served)
    while process.is_alive() and len(server.served) < before + wait:
        time.sleep(0.002)
    time.sleep(pause)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), (folder / "said").read_text()
    return process.exitcode != 0


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("command", COMMANDS)
def test_killed_at_any_moment_it_comes_to_the_same_end_and_pays_once(tmp_path, whole, command, kills):
    expected, answers = whole(command)
    luck = random.Random(f"{command} {kills}")
    left = kills
    for life in itertools.count():  # a command that is through leaves the kills that are left to another
        folder, before = tmp_path / str(life), left
        with Server(slowly, FEW_HANG, seed=life) as server:
            words = begun = prepared(folder, server, **COLD)[command]
            while left and killed(folder, words, server, luck.randrange(answers // 4), luck.uniform(0.0, 0.03)):
                left, words = left - 1, again(begun)
            through(folder, again(begun))
            settled(folder, server, before - left)
        assert outcomes(folder) == expected
        once = Counter({attempt: times for attempt, times in makings(folder).items() if not attempt[2]}) - asked_again(folder)
        assert set(once.values()) == {1}
        # what was under way when it was killed begins anew, as does what was lost, and nothing else
        anew = (before - left) * WORKERS + sum(makings(folder).values()) - len(expected)
        assert answers <= server.count(*ANSWERED) <= answers + anew * LIMIT
        if not left:
            break


# --- Ctrl-C and SIGTERM ---

CODE = "from agentevolve.cli.main import main; main()"


def hangs_from_the_fifth_on(asked: Asked) -> str:
    return "hang" if asked.number >= 5 else ""


def gone(group: int) -> bool:
    """Whether no process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", COMMANDS)
def test_interrupted_it_ends_with_one_line_and_goes_on(tmp_path, whole, command, sent):
    with Server(slowly, hangs_from_the_fifth_on) as server:
        words = prepared(tmp_path, server, timeout=300.0)[command]
        settings = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            [sys.executable, "-c", CODE, *words],
            cwd=tmp_path,
            env=settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while process.poll() is None and server.count("hang") < WORKERS:
            time.sleep(0.01)
        asked = len(server.served)
        process.send_signal(sent)
        out, err = process.communicate(timeout=60)  # the calls that hang would take five minutes
        assert (process.returncode, out) == (130, ""), err
        assert err.count("\n") == 1 and err.startswith("stop")
        assert gone(process.pid)
        assert len(server.served) == asked
        server.faults = {}
        through(tmp_path, again(words))
        settled(tmp_path, server, kills=1)
    assert outcomes(tmp_path) == whole(command)[0]
