"""`inspect eval` measures the served policy: a task of its own form made here, and an agent of its that calls tools.

It wants another fsspec than ours (constraints.txt), so it is no extra: this runs where somebody installed it beside us
(pip install inspect-ai==0.3.285, in an environment of its own).
"""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("inspect_ai")
from inspect_ai.log import list_eval_logs, read_eval_log
from served import KEY, House, served, settings

TASKS = """\
from inspect_ai import Task, task
from inspect_ai.agent import react
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes, match
from inspect_ai.solver import generate, system_message
from inspect_ai.tool import tool


@task
def sums():
    rows = [Sample(f"What is {n} + 5?", target=str(n + 5)) for n in range(1, 9)]
    return Task(rows, solver=[system_message("Answer with the number."), generate()], scorer=match(), epochs=2)


@tool
def add():
    async def execute(a: int, b: int) -> str:
        \"\"\"Add two numbers.

        Args:
            a: one
            b: the other
        \"\"\"
        return str(a + b)

    return execute


@task
def calls():
    return Task([Sample("What is 17 + 25?", target="42")], solver=react(tools=[add()]), scorer=includes(), message_limit=12)
"""


def adder(messages, choices) -> str:
    """Adds up, but for what is above ten; where there are tools it calls them."""
    seen = messages[-1].content
    if "17" in seen:
        return '{"name": "add", "arguments": {"a": 17, "b": 25}}'
    if seen == "42":
        return '{"name": "submit", "arguments": {"answer": "42"}}'
    total = int(seen.split()[2]) + 5
    return str(total if total <= 10 else 0)


def evaluated(folder: Path, house: House, name: str, *words: str):
    """The log of one task, evaluated by Inspect's command line."""
    (folder / "tasks.py").write_text(TASKS)
    env = settings(AGENTEVOLVE_API_KEY=KEY, AGENTEVOLVE_BASE_URL=house.url, INSPECT_DISPLAY="plain", XDG_DATA_HOME=str(folder))
    command = [sys.executable, "-m", "inspect_ai", "eval", f"tasks.py@{name}", "--model", "openai-api/agentevolve/agentevolve"]
    command += ["--log-dir", "logs", "--max-connections", "4", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (log,) = (read_eval_log(one) for one in list_eval_logs(str(folder / "logs")))
    return log


@pytest.mark.slow
def test_its_score_is_that_of_the_policy(tmp_path):
    with served(tmp_path, adder) as house:
        log = evaluated(tmp_path, house, "sums", "--temperature", "0.3", "--seed", "5", "--max-tokens", "50")
    assert (log.status, log.results.scores[0].metrics["accuracy"].value) == ("success", 5 / 8)
    (used,) = log.stats.model_usage.values()
    assert (used.input_tokens, used.output_tokens) == (16 * 9, 16)
    assert len(house.lived()) == 16 and {one.system for one in house.lived().values()} == {"Answer with the number."}


@pytest.mark.slow
def test_its_agent_calls_tools_in_one_conversation(tmp_path):
    with served(tmp_path, adder) as house:
        log = evaluated(tmp_path, house, "calls")
    assert (log.status, log.results.scores[0].metrics["accuracy"].value) == ("success", 1.0)
    (one,) = house.lived().values()
    assert [turn.observation for turn in one.turns] == ["42", ""] and {tool["function"]["name"] for tool in one.tools} == {
        "add",
        "submit",
    }


@pytest.mark.slow
def test_what_is_refused_is_told_by_inspect(tmp_path):
    with served(tmp_path, adder) as house:
        log = evaluated(tmp_path, house, "sums", "--num-choices", "2", "--no-fail-on-error")
    assert all("n: only 1 is answered" in sample.error.message for sample in log.samples)
