"""EleutherAI's lm-eval measures the served policy by its own command line, on a task of its own form made here.

It brings scoring packages along, so it is no extra: this runs where somebody installed it
(pip install -c constraints.txt "lm-eval[api]==0.4.13").
"""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from served import KEY, served, serving, settings

from agentevolve.run.folder import read_run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not find_spec("lm_eval"), reason="not installed here")]
TASK = """\
task: tiny_sums
dataset_path: json
dataset_kwargs: {data_files: {test: sums.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "What is {{a}} + {{b}}? Answer with the number alone."
doc_to_target: "{{a + b}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 16, do_sample: false, temperature: 0.0}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


def sums(messages, choices) -> str:
    """Adds up, but for what is above ten."""
    a, b = (int(word) for word in messages[-1].content.partition("is ")[2].partition("?")[0].split(" + "))
    return f"{a + b if a + b <= 10 else 0}\nuser: and then?"


def measured(folder: Path, url: str, count: int) -> dict:
    (folder / "tiny_sums.yaml").write_text(TASK)
    rows = [{"a": one, "b": 5} for one in range(1, count + 1)]
    (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["run", "--model", "local-chat-completions", "--include_path", str(folder), "--tasks", "tiny_sums"]
    words += ["--model_args", f"model=agentevolve,base_url={url}/chat/completions,num_concurrent=4,max_retries=1"]
    words += ["--apply_chat_template", "--output_path", str(folder / "out"), "--log_samples", "--seed", "7"]
    env = settings(OPENAI_API_KEY=KEY, HF_HOME=str(folder / "hf"))
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", *words], cwd=folder, capture_output=True, text=True, env=env, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (found,) = (folder / "out").rglob("results_*.json")
    return json.loads(found.read_text())


def test_its_score_is_that_of_the_policy(tmp_path):
    with served(tmp_path, sums) as house:
        told = measured(tmp_path, house.url, 8)
    assert told["results"]["tiny_sums"]["exact_match,none"] == 5 / 8
    lived = house.lived().values()
    assert len(lived) == 8 and all("\n" not in turn.action for one in lived for turn in one.turns)


def test_a_real_model_is_measured_through_the_command_line(tmp_path):
    with serving(tmp_path / "run") as url:
        told = measured(tmp_path, url, 6)
    assert 0 <= told["results"]["tiny_sums"]["exact_match,none"] <= 1
    lived = read_run(tmp_path / "run").trajectories.values()
    assert len(lived) == 6
    assert all(0 < one.usage.completion_tokens <= 16 and one.usage.prompt_tokens > 10 for one in lived)
