"""`vf-eval` of Prime Intellect's verifiers plays a taskset made here with the served policy, through its own chat harness.

The harness is a script that `uv` gives an environment of its own, from the package index: this runs where both are installed
(pip install "agentevolve[serve,verifiers]" uv).
"""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from served import KEY, House, served, settings

# not imported here: that takes seconds
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not (find_spec("verifiers") and find_spec("uv")), reason="not installed here")]

TASKSET = """\
import verifiers.v1 as vf


class SumsData(vf.TaskData):
    answer: str


class SumsTask(vf.Task[SumsData]):
    @vf.reward
    async def right(self, trace: vf.Trace) -> float:
        return float(trace.last_reply.strip() == self.data.answer)


class Sums(vf.Taskset[SumsTask]):
    def load(self):
        for n in range(1, 9):
            prompt = f"What is {n} + 5?"
            yield SumsTask(SumsData(prompt=prompt, system_prompt="Answer with the number.", answer=str(n + 5)), self.config.task)


__all__ = ["Sums"]
"""


def adder(messages, choices) -> str:
    total = int(messages[-1].content.split()[2]) + 5
    return str(total if total <= 10 else 0)


def evaluated(folder: Path, house: House, *words: str) -> list[dict]:
    """The traces of a taskset that was played by the package's command line."""
    (folder / "tiny_sums.py").write_text(TASKSET)
    command = [str(Path(sys.executable).with_name("vf-eval")), "tiny-sums", "--model", "agentevolve", "--no-push", "--no-rich"]
    command += ["--env.agent.harness.id", "null", "--env.agent.runtime.type", "subprocess", "--run.name", "here"]
    command += ["--client.base-url", house.url, "--client.api-key-var", "SERVED", *words]
    env = settings(SERVED=KEY, PYTHONPATH=str(folder))
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    episodes = [json.loads(line) for line in (folder / "outputs/here/traces.jsonl").read_text().splitlines()]
    return [trace for episode in episodes for trace in episode.get("traces", [episode])]


def test_its_rewards_are_those_of_the_policy(tmp_path):
    with served(tmp_path, adder) as house:
        traces = evaluated(tmp_path, house, "-r", "2", "-c", "4", "--sampling.temperature", "0.5", "--sampling.max-tokens", "32")
    assert not any(trace["errors"] for trace in traces)
    rewards = [reward["score"] for trace in traces for reward in trace["rewards"].values()]
    assert (len(traces), sum(rewards)) == (16, 10)
    assert len(house.lived()) == 16 and {one.system for one in house.lived().values()} == {"Answer with the number."}
