"""`agentevolve serve` as a program: it answers, it is ended by a signal, and what was said is in the journal."""

import os
import signal
import socket
import subprocess
import sys
import time

import httpx
from faulty import Server, walk

from agentevolve.run.folder import read_run

COMMAND = ["-c", "from agentevolve.cli.main import main; main()", "serve"]


def test_it_serves_until_it_is_asked_to_end_and_keeps_what_was_said(tmp_path):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    with Server(walk, {}) as backend:
        words = ["--model", "openai/test", "--api-base", backend.url, "--out", str(tmp_path / "r"), "--port", str(port)]
        env = os.environ | {"AGENTEVOLVE_SERVE_KEY": "k", "OPENAI_API_KEY": "none"}
        with subprocess.Popen([sys.executable, *COMMAND, *words], env=env, stderr=subprocess.PIPE, text=True) as program:
            answer = asked(port, program)
            assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"]
            program.send_signal(signal.SIGTERM)
            said = program.communicate(timeout=30)[1]
    assert program.returncode == 130 and f"serving openai/test at http://127.0.0.1:{port}/v1" in said and "key:" not in said
    assert "Traceback" not in said
    (one,) = read_run(tmp_path / "r").trajectories.values()
    assert (one.phase, one.prompt, len(one.turns)) == ("served", "where?", 1)


def asked(port: int, program: subprocess.Popen) -> httpx.Response:
    """The answer, once the program listens."""
    body, headers = {"messages": [{"role": "user", "content": "where?"}]}, {"Authorization": "Bearer k"}
    while program.poll() is None:
        try:
            return httpx.post(
                f"http://127.0.0.1:{port}/v1/chat/completions", json=body, headers=headers, timeout=60, trust_env=False
            )
        except httpx.ConnectError:
            time.sleep(0.1)
    raise AssertionError(program.communicate()[1])


def test_what_cannot_be_served_is_one_line(ask, tmp_path):
    code, out, err = ask("serve", "--model", "oracle", "--out", "r")
    assert (code, out) == (2, "") and err == "error: oracle answers nobody: it is no model of language\n"
    assert ask("serve", "--model", "nobody/x", "--out", "r")[0] == 2
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = ask("serve", "--model", "openai/x", "--api-base", "http://127.0.0.1:9/v1", "--out", "r", "--port", port)
    assert code == 2 and err == f"error: 127.0.0.1:{port}: Address already in use; name another with --host or --port\n"
    assert not (tmp_path / "r").exists()
