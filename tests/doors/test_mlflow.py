"""A real `mlflow server` takes our spans over OTLP/HTTP, and its own client reads them back.

It brings much along, so it is no extra: this runs where somebody installed it beside us
(pip install mlflow==3.17.2, in an environment of its own).
"""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

pytest.importorskip("mlflow")
from faulty import Server, backend_words, walk
from mlflow import MlflowClient
from worlds import task_file

from agentevolve.doors import traces
from agentevolve.run.folder import read_run

PATIENCE = 240.0  # seconds until the server answers, or has kept what it was sent
pytestmark = pytest.mark.slow


@pytest.fixture
def served(tmp_path):
    """The address of a server over a new SQLite store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    settings = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # else it waits for prices from the network
    log = (tmp_path / "mlflow.log").open("w")
    process = subprocess.Popen([sys.executable, "-m", "mlflow", *words], cwd=tmp_path, env=settings, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(f"{address}/health", process)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def _wait(address: str, process: subprocess.Popen) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError("mlflow server did not start")


def whole(client, experiment) -> list:
    """The traces whose root, which ends last, has arrived."""
    found = client.search_traces(locations=[experiment])
    return [one for one in found if any(span.parent_id is None for span in one.data.spans)]


def test_mlflow_takes_the_spans_and_tells_tokens_and_structure(served, ask, tmp_path, monkeypatch):
    client = MlflowClient(served)
    experiment = client.create_experiment("agentevolve")
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", served)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"x-mlflow-experiment-id={experiment}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "120")  # its first request loads much
    monkeypatch.setenv(traces.CONTENT, "true")
    task_file(tmp_path, length=2)
    with Server(walk) as server:
        code, _, err = ask("run", "corridor.yaml", "--limit", "2", "--out", "r", "--quiet", *backend_words(server))
    assert (code, err) == (0, "run: r\n")
    made = read_run(tmp_path / "r").trajectories
    until = time.monotonic() + PATIENCE
    while len(found := whole(client, experiment)) < len(made) and time.monotonic() < until:
        time.sleep(2)
    traces.stop()
    told = {}
    for one in found:
        spans = {span.span_id: span for span in one.data.spans}
        [agent] = [span for span in spans.values() if span.parent_id is None]
        told[agent.attributes["gen_ai.conversation.id"]] = one
        below = sorted((span for span in spans.values() if span.parent_id == agent.span_id), key=lambda span: span.start_time_ns)
        assert [span.name for span in below] == ["chat openai/test", "execute_tool step"] * 2
        used = made[agent.attributes["gen_ai.conversation.id"]].usage
        assert one.info.token_usage["input_tokens"] == used.prompt_tokens
        assert one.info.token_usage["output_tokens"] == used.completion_tokens
        assert "the lamp is" in str(below[0].inputs or below[0].attributes)
    assert set(told) == set(made)
