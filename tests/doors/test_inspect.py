"""Inspect AI reads the logs that we write, computes their figures anew, and makes its own form of them.

It wants another fsspec than ours (constraints.txt), so it is no extra: this runs where somebody installed it beside us
(pip install inspect-ai==0.3.285, in an environment of its own).
"""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("inspect_ai")
from inspect_ai.log import list_eval_logs, read_eval_log, read_eval_log_sample, read_eval_log_samples
from lives import SECRET, lived

from agentevolve.doors.exports import Wanted, export


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("inspect")
    assert export(lived(place / "r"), place / "logs", "inspect", Wanted()) == 8
    return place / "logs"


@pytest.fixture(scope="module")
def logs(folder) -> dict:
    found = [read_eval_log(info) for info in list_eval_logs(str(folder))]
    return {log.eval.metadata["phase"]: log for log in found}


def test_every_log_is_found_and_read(logs):
    assert set(logs) == {"1/acquire", "2/acquire", "1/val/base", "test/base"}
    log = logs["1/acquire"]
    assert (log.status, log.eval.task, log.eval.model, log.eval.config.epochs) == ("success", "doors", "openai/tiny", 2)
    assert (log.results.total_samples, log.results.completed_samples) == (4, 3)
    scores = {score.name: {name: metric.value for name, metric in score.metrics.items()} for score in log.results.scores}
    assert scores == {"solved": {"accuracy": pytest.approx(2 / 3)}, "reward": {"mean": pytest.approx(0.75)}}
    used = log.stats.model_usage["openai/tiny"]
    assert (used.input_tokens, used.input_tokens_cache_read, used.output_tokens) == (75, 25, 15)


def test_a_sample_says_what_was_seen_said_and_scored(logs):
    first, second, _, lost = logs["1/acquire"].samples
    assert (first.id, first.epoch, second.id, second.epoch) == ("doors/train/1", 1, "doors/train/1", 2)
    assert first.scores["solved"].value == "C" and second.scores["reward"].value == 0.25
    assert [one.role for one in first.messages][-4:] == ["assistant", "user", "assistant", "user"]
    said = first.messages[-4].content
    assert (said[0].reasoning, said[1].text) == ("Where?", "look")
    assert lost.error.message == "OSError: the ceiling came down" and not lost.scores


def test_calls_of_tools_are_inspects_own(logs):
    calling, hostile = logs["2/acquire"].samples
    said, answer = calling.messages[2:]
    assert (said.tool_calls[0].function, said.tool_calls[0].arguments) == ("open_door", {"door": "red"})
    assert (answer.role, answer.tool_call_id, answer.content) == ("tool", said.tool_calls[0].id, "It opens.")
    assert SECRET not in hostile.model_dump_json() and "🦜" in hostile.messages[-1].content


def test_samples_are_read_one_by_one_and_the_log_is_converted(folder, logs, tmp_path):
    log = logs["1/acquire"]
    assert read_eval_log_sample(log.location, "doors/train/1", 2).scores["reward"].value == 0.25
    assert len(list(read_eval_log_samples(log.location, all_samples_required=False))) == 4
    command = [sys.executable, "-m", "inspect_ai", "log", "convert", str(folder), "--to", "eval", "--output-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    made = [read_eval_log(info) for info in list_eval_logs(str(tmp_path), formats=["eval"])]
    assert {one.eval.metadata["phase"]: len(one.samples) for one in made} == {
        phase: len(log.samples) for phase, log in logs.items()
    }
