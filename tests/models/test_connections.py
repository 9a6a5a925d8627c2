"""Calls side by side keep their connections, on every route: a new one for each call costs more than the call."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from agentevolve.models.backend import litellm
from agentevolve.models.lite import open_model
from agentevolve.policy import ModelOptions
from agentevolve.records import Message

CALLERS, CALLS = 32, 3  # more than the 20 connections that LiteLLM keeps of its own accord
ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "left"}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


@pytest.mark.parametrize("route", ["openai", "hosted_vllm"])
def test_as_many_connections_are_opened_as_there_are_calls_side_by_side(monkeypatch, route):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    opened = []
    together = threading.Barrier(CALLERS)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            opened.append(self)
            super().setup()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            together.wait(30)  # all calls are under way at once
            said = json.dumps(ANSWER).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    class Listener(ThreadingHTTPServer):
        request_queue_size = 2 * CALLERS
        daemon_threads = True

    with Listener(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        model = open_model(f"{route}/m", api_base=f"http://127.0.0.1:{server.server_port}/v1")
        with ThreadPoolExecutor(CALLERS) as pool:
            for _ in range(CALLS):
                list(pool.map(lambda _: model.complete([Message(role="user", content="?")], choices=["left"]), range(CALLERS)))
        server.shutdown()
    assert len(opened) == CALLERS


def test_a_handler_that_litellm_lets_go_does_not_cut_off_the_calls_of_others():
    """It makes one for each thread that finds none at first, keeps the last, and lets go even of that after an hour."""
    asked, answer = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.set()
            answer.wait(30)
            said = json.dumps(ANSWER).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, ThreadPoolExecutor(1) as pool:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = ModelOptions(timeout=10, tries=1)
        model = open_model("hosted_vllm/m", api_base=f"http://127.0.0.1:{server.server_port}/v1", options=options)
        call = pool.submit(model.complete, [Message(role="user", content="?")], choices=["left"])
        assert asked.wait(30)
        litellm().HTTPHandler().close()
        answer.set()
        assert call.result().text == "left"
        server.shutdown()
