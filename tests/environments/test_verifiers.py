"""Worlds of the package verifiers: its own loader, environments, tools and scoring, with our agent in its model's place.

This runs where the package is installed (pip install -e ".[verifiers]", in an environment of its own).
"""

import re
import subprocess
import sys

import pytest

from agentevolve.load import load_environment, load_task_set, ready, tasks_of
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Task

MODULES = {
    "tiny_sums": """
import verifiers.v1 as vf


class SumsData(vf.TaskData):
    answer: str


class SumsConfig(vf.TasksetConfig):
    add: int = 5


class SumsTask(vf.Task[SumsData]):
    @vf.reward
    async def right(self, trace: vf.Trace) -> float:
        return float(trace.last_reply.strip() == self.data.answer)


class Sums(vf.Taskset[SumsTask, SumsConfig]):
    def load(self):
        for n in range(1, 9):
            prompt, answer = f"What is {n} + {self.config.add}?", str(n + self.config.add)
            yield SumsTask(SumsData(prompt=prompt, system_prompt="Say the number.", answer=answer), self.config.task)


__all__ = ["Sums"]
""",
    "tiny_tools": '''
import verifiers.v1 as vf


class Box(vf.Toolset[vf.ToolsetConfig]):
    @vf.tool
    async def open_box(self, number: int) -> str:
        """Open a box.

        Args:
            number: which
        """
        return "a lamp" if number == 3 else "nothing"


class BoxData(vf.TaskData):
    pass


class BoxTask(vf.Task[BoxData]):
    @classmethod
    def toolsets(cls, config):
        return [Box(vf.ToolsetConfig())]

    @vf.reward
    async def found(self, trace: vf.Trace) -> float:
        return float(any("a lamp" in str(message.content) for message in trace.tool_messages)) * 2


class Boxes(vf.Taskset[BoxTask]):
    INFINITE = True

    def load(self):
        while True:
            yield BoxTask(BoxData(prompt="Find the lamp in one of five boxes."), self.config.task)


__all__ = ["Boxes"]

if __name__ == "__main__":
    Box.run()
''',
    "tiny_talk": """
import verifiers.v1 as vf


class GuessData(vf.TaskData):
    number: int


class GuessTask(vf.Task[GuessData]):
    pass


class GuessConfig(vf.EnvConfig):
    guesser: vf.AgentConfig = vf.AgentConfig()


class GuessEnv(vf.Env[GuessConfig]):
    async def run(self, task, agents):
        async with agents.guesser.interaction(task) as talk:
            said = await talk.turn()
            while not said.terminated and said.last_reply != str(task.data.number):
                if said.last_reply == "break":
                    raise ValueError("the ceiling came down")
                said = await talk.turn("higher" if said.last_reply < str(task.data.number) else "lower")
        talk.trace.record_reward("guessed", float(said.last_reply == str(task.data.number)), 1.0)


class Guesses(vf.Taskset[GuessTask]):
    def load(self):
        for number in range(1, 9):
            yield GuessTask(GuessData(prompt="Which number from 1 to 8?", number=number), self.config.task)


__all__ = ["Guesses", "GuessEnv"]
""",
    "tiny_broken": "raise OSError('no\\nway in')",
    "tiny_nothing": "__all__ = []",
}
TASKS = """\
name: sums
about: Add up.
env: verifiers:tiny-sums
settings: {{limit: 3{more}}}
splits:
  train: {{seeds: [0, 5]}}
  val: {{seeds: [5, 8]}}
licence: MIT
"""


@pytest.fixture(scope="module", autouse=True)
def modules(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules")
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder))  # the package starts tools in processes of their own
        yield folder


@pytest.fixture
def package():
    pytest.importorskip("verifiers.v1")


def task(name: str, seed: int = 0, **data) -> Task:
    return Task(id=f"v/train/{seed}", env=f"verifiers:{name}", split="train", seed=seed, data=data)


def entered(one: Task):
    env = load_environment(one.env)()
    return env, *env.reset(one)


def refused(call, *given) -> str:
    with pytest.raises(AgentevolveError) as caught:
        call(*given)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    return str(caught.value)


slow = pytest.mark.slow  # the package takes long to import


@slow
def test_an_answer_is_scored_by_the_taskset(package):
    env, seen, info = entered(task("tiny-sums", 2))
    assert (seen, info) == ("What is 3 + 5?", {"score": 0.0, "raw": 0.0, "notes": "Say the number."})
    step = env.step("8")
    assert (step.reward, step.terminated, step.truncated, step.info) == (1.0, True, False, {"score": 1.0, "raw": 1.0})
    assert env.reset(task("tiny-sums", 2, taskset={"add": 1}))[0] == "What is 3 + 1?"
    assert env.step("no \ud800 idea").info["score"] == 0.0
    with pytest.raises(RuntimeError, match="reset first"):
        env.step("8")
    assert "a taskset tells no solution" in refused(env.oracle, task("tiny-sums"))
    assert "seed 8 is beyond its 8 tasks" in refused(env.reset, task("tiny-sums", 8))


@slow
def test_tools_are_called_where_the_package_runs_them_and_a_limit_cuts_off(package):
    env, seen, info = entered(task("tiny-tools", 40, limit=4, scale=[0, 2]))
    (tool,) = info["tools"]
    name = tool["function"]["name"]
    assert name.endswith("open_box") and list(tool["function"]["parameters"]["properties"]) == ["number"]
    assert seen == "Find the lamp in one of five boxes."
    assert env.step(f'{{"name": "{name}", "arguments": {{"number": 1}}}}').observation == "nothing"
    assert "error" in env.step(f'{{"name": "{name}", "arguments": {{"number": "x"}}}}').observation.lower()
    assert env.step(f'{{"name": "{name}", "arguments": {{"number": 3}}}}').observation == "a lamp"
    assert env.step("It is in the third.").info == {"score": 1.0, "raw": 2.0}
    env.reset(task("tiny-tools", limit=2))
    env.step(f'{{"name": "{name}", "arguments": {{"number": 3}}}}')
    last = env.step(f'{{"name": "{name}", "arguments": {{"number": 3}}}}')
    assert (last.truncated, last.terminated, last.info["raw"]) == (True, False, 2.0)


@slow
def test_an_environment_of_several_turns_talks_with_the_agent(package):
    env, seen, _ = entered(task("tiny-talk", 4))
    assert seen == "Which number from 1 to 8?"
    assert [env.step(word).observation for word in ("3", "7")] == ["higher", "lower"]
    assert env.step("5").info["score"] == 1.0
    env.reset(task("tiny-talk", 4))
    with pytest.raises(RuntimeError, match="the ceiling came down"):
        env.step("break")
    env.reset(task("tiny-talk", 4))
    env.close()
    env.close()
    assert env.reset(task("tiny-talk", 0))[0] == seen and env.step("1").terminated


@slow
def test_many_play_at_once_and_a_run_learns_there(package, tmp_path):
    from worlds import new_run, use_model

    from agentevolve.act.rollout import rollout
    from agentevolve.models.stand_ins import ScriptedModel
    from agentevolve.policy import Policy

    (tmp_path / "sums.yaml").write_text(TASKS.format(more=""))
    task_set = load_task_set(tmp_path / "sums.yaml")
    ready(task_set)
    run = new_run(tmp_path / "r", workers=4)
    adds = ScriptedModel(lambda messages, choices: str(int(re.search(r"(\d) \+ 5", messages[-1].content)[1]) + 5))
    policy = use_model(run, adds, Policy(model="random"))
    lived = rollout(policy, tasks_of(task_set, "train"), run, phase="1/acquire", samples=3)
    run.close()
    assert [one.reward for one in lived] == [1.0] * 15 and all("What is" in one.prompt for one in lived)


@slow
def test_the_command_line_plays_it_with_a_real_model(package, tmp_path):
    (tmp_path / "sums.yaml").write_text(TASKS.format(more=""))
    words = ["run", "sums.yaml", "--model", "local/smollm2-135m", "--threads", "1", "--split", "val", "--out", "r", "--quiet"]
    command = [sys.executable, "-c", "from agentevolve.cli.main import main; main()", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert (done.returncode, done.stderr) == (0, "run: r\n"), done.stderr
    assert "sums" in done.stdout


@slow
@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("no-such-thing", {}, "there is no such taskset"),
        ("tiny-broken", {}, "cannot be loaded: OSError: no way in"),
        ("tiny-nothing", {}, "exports no Taskset subclass"),
        ("json", {}, "cannot be loaded"),
        ("tiny-sums", {"taskset": {"deep": 1}}, "deep"),
        ("tiny-sums", {"env": {"id": "no-such-env"}}, "no-such-env"),
        ("tiny-sums", {"env": {"rounds": 3}}, "rounds"),
    ],
)
def test_what_is_no_taskset_is_one_line(package, name, data, why):
    env = load_environment(f"verifiers:{name}")()
    assert why in refused(env.reset, task(name, **data))


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("../etc", {}, "the name of a taskset is wanted"),
        ("a b", {}, "the name of a taskset is wanted"),
        ("", {}, "does not say which: verifiers:NAME"),
        ("tiny-sums", {"limit": 0}, "settings.limit: 0"),
        ("tiny-sums", {"taskset": {"id": "x"}}, "named by verifiers:NAME alone"),
        ("tiny-sums", {"env": 3}, "settings.env: 3 is not a dict"),
        ("tiny-sums", {"scale": [0, 0]}, "is not [low, high]"),
        ("tiny-sums", {"speed": 3}, "unknown key 'speed'; known: taskset, env, limit, scale"),
    ],
)
def test_unusable_names_and_settings_are_one_line(name, data, why):
    from agentevolve.load import check_settings

    assert why in refused(check_settings, f"verifiers:{name}", data)


def test_the_worlds_from_outside_are_described_as_the_others_are():
    from agentevolve.load import extra, manual, needs

    for name in ("verifiers:x", "openenv:http://127.0.0.1:1"):
        assert extra(name) == name.partition(":")[0] and needs(name) and "Description" in manual(name)
