"""A server on loopback that keeps the rules of vLLM's LoRA routes, and answers with a real tiny model: where there is no GPU.

The rules, as vLLM 0.33 has them: routes for adapters are there only if it was started for that; a name that is loaded is refused;
an unknown one is a 404, an evicted one too; and its prefix cache goes by an adapter's name, so that a name that comes to mean
other weights is answered from the old ones. As a program it takes the words of `vllm serve`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from agentevolve.models.engines.transformers import Engine, serve


class StandIn:
    """Serves the transformers folder `base` under `name`. `requests` are the model, route and body of each that came in.

    `changes` are how many chats were in flight as an adapter was loaded or unloaded; a chat takes `pause` seconds more.
    """

    def __init__(self, base: Path, *, name: str = "", loads: bool = True, rank: int = 64, key: str = "", port: int = 0) -> None:
        self.base, self.name, self.loads, self.rank, self.key = base, name or str(base), loads, rank, key
        self.loaded: dict[str, str] = {}
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self.wrong = False  # whether it answers for adapters with the base
        self.pause, self.changes = 0.0, list[int]()
        self._flying, self._lock = 0, threading.Lock()
        self._engines: dict[str, Engine] = {self.name: serve(base, threads=1)}
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> StandIn:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def forever(self) -> None:
        """Serve in this thread."""
        self._server.serve_forever()

    def answered_by(self, route: str) -> list[str]:
        """The models that were asked for by this route, in order."""
        return [model for model, asked, _ in self.requests if asked == route]

    def answer(self, how: str, route: str, body: dict[str, Any], key: str) -> tuple[int, Any]:
        """The status and what is said."""
        self.requests.append((str(body.get("model", body.get("lora_name", ""))), route, body))
        if self.key and key != f"Bearer {self.key}":
            return 401, {"error": "Unauthorized"}
        if route == "/v1/models":
            cards = [{"id": self.name, "root": str(self.base), "parent": None}]
            return 200, {"data": cards + [{"id": one, "root": path, "parent": self.name} for one, path in self.loaded.items()]}
        if route in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
            return self._adapters(route, body) if self.loads else (404, {"detail": "Not Found"})
        known = {"/v1/chat/completions": self._chat, "/v1/completions": self._completions, "/tokenize": self._tokenize}
        if route not in known:
            return 404, {"detail": "Not Found"}
        if body["model"] not in (self.name, *self.loaded):
            return 404, error(f"The model `{body['model']}` does not exist.", 404)
        asked = self.name if self.wrong else body["model"]
        return 200, known[route](self._engines[asked], body)

    def _adapters(self, route: str, body: dict[str, Any]) -> tuple[int, Any]:
        name, path = body.get("lora_name", ""), body.get("lora_path", "")
        if name:
            self.changes.append(self._flying)
        if route.endswith("/unload_lora_adapter"):
            if name not in self.loaded:
                return 404, error(f"The lora adapter '{name}' cannot be found.", 404)
            del self.loaded[name]
            return 200, f"Success: LoRA adapter '{name}' removed successfully."
        if not name or not path:
            return 400, error("Both 'lora_name' and 'lora_path' must be provided.", 400)
        if name in self.loaded:
            return 400, error(f"The lora adapter '{name}' has already been loaded.", 400)
        config = Path(path) / "adapter_config.json"
        if not config.is_file():
            return 404, error(f"Loading lora {name} failed: No adapter found for {path}", 404)
        if json.loads(config.read_text())["r"] > self.rank:
            return 400, error(f"LoRA rank is greater than max_lora_rank {self.rank}.", 400)
        self.loaded[name] = path
        if name not in self._engines:  # else the cache of that name answers
            self._engines[name] = serve(self.base, adapter=Path(path), threads=1)
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def _chat(self, engine: Engine, body: dict[str, Any]) -> dict[str, Any]:
        choices = (body.get("structured_outputs") or {}).get("choice")
        with self._lock:
            self._flying += 1
        text, read, said = engine.answer(body["messages"], body | {"extra_body": {"choices": choices}})
        time.sleep(self.pause)
        with self._lock:
            self._flying -= 1
        usage = {"prompt_tokens": read, "completion_tokens": said, "total_tokens": read + said}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        return {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice], "usage": usage}

    def _completions(self, engine: Engine, body: dict[str, Any]) -> dict[str, Any]:
        told = []
        for place, prompt in enumerate(body["prompt"]):
            chance = engine.chances(prompt[:-1], prompt[-1:], 1.0)[prompt[-1]]
            last = {str(prompt[-1]): {"logprob": chance, "rank": 1, "decoded_token": ""}}
            told.append({"index": place, "text": "", "prompt_logprobs": [None, *[{}] * (len(prompt) - 2), last]})
        return {"object": "text_completion", "choices": told[::-1]}

    def _tokenize(self, engine: Engine, body: dict[str, Any]) -> dict[str, Any]:
        return {"count": engine.count(body["prompt"]), "max_model_len": 4096, "tokens": []}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._say(*stand_in.answer("GET", self.path, {}, self.headers.get("Authorization", "")))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._say(*stand_in.answer("POST", self.path, body, self.headers.get("Authorization", "")))

            def _say(self, status: int, said: Any) -> None:
                text = said if isinstance(said, str) else json.dumps(said)
                self.send_response(status)
                self.send_header("Content-Type", "text/plain" if isinstance(said, str) else "application/json")
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def error(text: str, code: int) -> dict[str, Any]:
    """As vLLM says it."""
    return {"error": {"message": text, "type": "NotFoundError" if code == 404 else "BadRequestError", "code": code}}


if __name__ == "__main__":
    words = sys.argv[1:]
    told = {name: words[words.index(name) + 1] for name in ("--port", "--served-model-name", "--max-lora-rank")}
    stand_in = StandIn(
        Path(words[1]),
        name=told["--served-model-name"],
        loads="--enable-lora" in words and os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING") == "True",
        rank=int(told["--max-lora-rank"]),
        key=os.environ["VLLM_API_KEY"],
        port=int(told["--port"]),
    )
    stand_in.forever()
