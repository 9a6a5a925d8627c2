"""A server on loopback that speaks OpenAI's chat completions, misbehaves as it is told, and knows what it has served.
Below it: who answers, the commands that ask it, and what is to come of them.

What it answers hangs on the messages alone, and whether it misbehaves on them, its seed and how often they were asked: a run
beside it is the same run every time, and asking again is worth while.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from worlds import task_file

from agentevolve.records import Usage
from agentevolve.run.folder import AGAIN, JOURNAL, Run

Messages = Sequence[Mapping[str, Any]]
Script = Callable[[Messages], str]

KEY = "sk-echoed-000000000000"  # what a server with the fault "key" says back
PATIENCE = 60.0  # seconds after which a hanging or slow answer ends even if the client still waits
REFUSED = "refused "  # followed by the parameter that the server does not take

# what the server answers instead, at no cost: status, code, words
REFUSALS = {
    "429": (429, "rate_limit_exceeded", "Rate limit reached, try again later."),
    "429 retry-after": (429, "rate_limit_exceeded", "Rate limit reached, try again in a second."),
    "500": (500, "server_error", "The server had an error while processing your request."),
    "401": (401, "invalid_api_key", "Incorrect API key provided."),
    "402": (402, "payment_required", "Insufficient credits: add more to go on."),
    "quota": (429, "insufficient_quota", "You exceeded your current quota, please check your plan and billing details."),
    "403": (403, "forbidden", "You may not use this model."),
    "moderation": (403, "content_policy_violation", "Your input was flagged by our moderation."),
}
# what it does to its answer's text
TWISTED: dict[str, Callable[[str], str]] = {
    "empty": lambda text: "",
    "cut off": lambda text: text[: len(text) // 2],
    "thinking": lambda text: f"<think>\nLeft or right? I could wait.\n</think>\n\n{text}",
    "huge": lambda text: "word" * 1_250_000,
    "key": lambda text: f"{text} {KEY}",
}
# what it does to the usage that it reports
MISCOUNTED: dict[str, Callable[[int], int | None]] = {
    "no usage": lambda tokens: None,
    "negative usage": lambda tokens: -tokens,
    "absurd usage": lambda tokens: tokens + 10**12,
}
UNREADABLE = ("broken", "html")  # an answer was made, and nobody can read what it cost
SILENT = ("hang", "reset", "drip")  # perhaps one would have been made: nobody waits for it, or knows what it cost


class Asked(NamedTuple):
    """A request: the how manieth of all and with these messages (from 0), and what it says."""

    number: int
    again: int
    digest: str
    body: Mapping[str, Any]

    @property
    def text(self) -> str:
        """Everything that the messages say."""
        return "\n".join(str(message.get("content")) for message in self.body["messages"])


Faults = Mapping[str, float] | Callable[[Asked], str]  # shares of all requests by fault, or the fault of a request ("": none)


class Served(NamedTuple):
    """What became of a request: the answer's status (0: none), its fault, what it cost, and which messages it was about."""

    status: int
    fault: str
    prompt_tokens: int
    completion_tokens: int
    digest: str

    @property
    def tokens(self) -> int:
        """What the answer cost."""
        return self.prompt_tokens + self.completion_tokens


class Server:
    """The server, from `with` on: `script` writes its answers, `faults` spoil them and may be replaced while it runs."""

    def __init__(self, script: Script, faults: Faults | None = None, seed: int = 0) -> None:
        self.script, self.faults, self.seed = script, faults or {}, seed
        self.served: list[Served] = []
        self._times: dict[str, int] = {}
        self._number = 0
        self._lock = threading.Lock()
        self._http = _Listener(("127.0.0.1", 0), type("Handler", (_Handler,), {"house": self}))
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> Server:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def count(self, *faults: str) -> int:
        """How many requests met one of these faults ("": none)."""
        with self._lock:
            return sum(one.fault in faults for one in self.served)

    def tokens(self, *faults: str) -> int:
        """What the answers with these faults ("": without) cost."""
        with self._lock:
            return sum(one.tokens for one in self.served if one.fault in faults)

    def reported(self) -> int:
        """What it cost by the usage that it reported and that can be believed."""
        return self.tokens("", *TWISTED)

    def unreported(self) -> int:
        """What the answers cost whose usage it kept to itself or got wrong."""
        return self.tokens(*MISCOUNTED)

    def unread(self) -> int:
        """What was perhaps paid for and nobody can know."""
        return self.tokens(*UNREADABLE, *SILENT)

    def asked(self, body: Mapping[str, Any]) -> Asked:
        """Number a request."""
        digest = hashlib.sha256(json.dumps(body["messages"], sort_keys=True).encode()).hexdigest()[:16]
        with self._lock:
            asked = Asked(self._number, self._times.get(digest, 0), digest, body)
            self._number += 1
            self._times[digest] = asked.again + 1
        return asked

    def fault(self, asked: Asked) -> str:
        """The fault of a request; a parameter that is not there can't be refused."""
        fault = self.faults(asked) if callable(self.faults) else self._drawn(self.faults, asked)
        absent = fault.startswith(REFUSED) and fault.removeprefix(REFUSED) not in asked.body
        return "" if absent else fault

    def _drawn(self, shares: Mapping[str, float], asked: Asked) -> str:
        luck = random.Random(f"{self.seed} {asked.digest} {asked.again}").random()
        for fault, share in shares.items():
            luck -= share
            if luck < 0:
                return fault
        return ""

    def note(self, served: Served) -> None:
        """Keep what is about to be served."""
        with self._lock:
            self.served.append(served)


class _Listener(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # clients are killed here
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    house: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = self.house.asked(body)
        fault = self.house.fault(asked)
        with contextlib.suppress(ConnectionError, TimeoutError):
            self._serve(asked, fault)

    def _serve(self, asked: Asked, fault: str) -> None:
        if fault in SILENT:
            self.house.note(Served(0, fault, words(asked.text), 0, asked.digest))
            return {"hang": self._hang, "reset": self._reset, "drip": self._drip}[fault]()
        if fault in REFUSALS or fault.startswith(REFUSED):
            return self._refuse(asked, fault)
        text = TWISTED.get(fault, str)(written(self.house.script(asked.body["messages"]), asked.body))
        self.house.note(Served(200, fault, words(asked.text), words(text), asked.digest))
        self._answer(text, fault, asked)

    def _refuse(self, asked: Asked, fault: str) -> None:
        name = fault.removeprefix(REFUSED)
        unsupported = (400, "unsupported_parameter", f"Unsupported parameter: '{name}' is not supported with this model.")
        status, code, said = REFUSALS.get(fault, unsupported)
        self.house.note(Served(status, fault, 0, 0, asked.digest))
        error = {"message": said, "type": code, "code": code, "param": name if fault.startswith(REFUSED) else None}
        later = {"Retry-After": "1"} if fault == "429 retry-after" else {}
        self._send(status, json.dumps({"error": error}), **later)

    def _answer(self, text: str, fault: str, asked: Asked) -> None:
        prompt, completion = words(asked.text), words(text)
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        told = {name: MISCOUNTED.get(fault, int)(tokens) for name, tokens in usage.items()}
        parts = {"usage": told} if None not in told.values() else {}
        finish = "length" if fault == "cut off" else "stop"
        if fault == "html":
            return self._send(200, "<html><body><h1>502 Bad Gateway</h1></body></html>", **{"Content-Type": "text/html"})
        if asked.body.get("stream"):
            return self._send(200, streamed(text, finish, parts, fault == "broken"), **{"Content-Type": "text/event-stream"})
        whole = json.dumps(completion_of({"message": {"role": "assistant", "content": text}}, finish) | parts)
        self._send(200, whole[: len(whole) // 2] if fault == "broken" else whole)

    def _send(self, status: int, text: str, **headers: str) -> None:
        data = text.encode()
        self._head(status, len(data), headers)
        self.wfile.write(data)

    def _head(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(length)} | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()

    def _hang(self) -> None:
        """Say nothing until the client has gone."""
        self.close_connection = True
        self.connection.settimeout(PATIENCE)
        self.connection.recv(1)

    def _reset(self) -> None:
        """Close the connection without an answer and without a farewell."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()

    def _drip(self) -> None:
        """A byte a second of an answer that never ends."""
        self.close_connection = True
        self._head(200, 10_000, {})
        for _ in range(int(PATIENCE)):
            self.wfile.write(b" ")
            time.sleep(1)

    def log_message(self, *args: object) -> None:
        pass


def completion_of(choice: Mapping[str, Any], finish: str | None) -> dict[str, Any]:
    """OpenAI's object around one choice."""
    kind = "chat.completion.chunk" if "delta" in choice else "chat.completion"
    head = {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "test"}
    return head | {"choices": [{"index": 0, "finish_reason": finish, **choice}]}


def streamed(text: str, finish: str, parts: Mapping[str, Any], broken: bool) -> str:
    """The answer as server-sent events: its text in two pieces, then how it ended with what it cost."""
    half = len(text) // 2
    pieces = [completion_of({"delta": {"role": "assistant", "content": piece}}, None) for piece in (text[:half], text[half:])]
    events = [json.dumps(piece) for piece in (*pieces, completion_of({"delta": {}}, finish) | parts)] + ["[DONE]"]
    whole = "".join(f"data: {event}\n\n" for event in events)
    return whole[: len(whole) // 2] if broken else whole


def written(text: str, body: Mapping[str, Any]) -> str:
    """An answer in the form that the request holds it to."""
    held = body.get("response_format", {}).get("json_schema", {}).get("name") == "action"
    return json.dumps({"action": text}) if held else text


def words(text: str) -> int:
    """The tokens of this server."""
    return len(text.split())


# --- who answers ---


def seen(messages: Messages) -> str:
    """The last observation of a corridor: what its answers hang on, whatever was recalled before it."""
    return str(messages[-1]["content"]).rpartition("Corridor ")[2]


def walk(messages: Messages) -> str:
    """Walks to the lamp; whatever else it is asked, it answers with a lesson."""
    if "the lamp is" not in seen(messages):
        return "Next time, walk to the lamp."
    return "right" if "the lamp is right" in seen(messages) else "left"


def recalls(text: str) -> bool:
    """Whether somebody is shown a game that was won."""
    return "game that was won" in text


def learn(messages: Messages) -> str:
    """Walks to the lamp when it recalls a game that was won, and by luck without: one step in three it only waits."""
    luck = random.Random(f"{len(messages)} {seen(messages)}").random()
    knows = luck < 2 / 3 or any(recalls(str(message["content"])) for message in messages)
    return walk(messages) if knows or "the lamp is" not in seen(messages) else "wait"


# --- who asks ---

# five of a hundred requests each: what a backend does to those who call it all day
FIVE_PERCENT = dict.fromkeys(
    (
        *("429", "429 retry-after", "500", "hang", "reset", "empty", "broken", "html", "no usage", "cut off", "thinking"),
        "refused temperature",
    ),
    0.05,
)
ANSWERED = ("", "thinking", *MISCOUNTED)  # the faults, or none, with which an answer can be used
OPTIONS = {"timeout": 2.0, "tries": 8, "pause": 0.01}
COLD = {"timeout": 10.0}  # the first call of a process waits for what is imported then
WORKERS = 4
LIMIT = 6  # turns of an attempt
RESERVED = 2_500  # at most so many tokens are held for one call: its prompt and the reply's limit
ROUGH = 8  # an estimate is at least the words and at most so many times them

SETUP = """\
tasks: corridor.yaml
model: openai/test
api_base: {url}
model_options: {options}
recall: {{whole: [demo], nearest: {{}}}}
workers: {workers}
"""
EVOLVE = """\
train: {tasks: 5}
val: {tasks: 6}
test: {tasks: 3}
rounds: 3
arms: [base, memory]
settings: {samples: 2, epsilon: [0.2], reflections: 2, rows: 0}
"""
COMPARE = """\
train: {tasks: 5}
held: {tasks: 5}
rounds: 2
budget: {episodes: 60}
methods:
- {method: agentevolve, settings: {samples: 2, epsilon: [0.2], reflections: 0, rows: 0}}
- {method: reflexion, settings: {trials: 2}}
"""
COMMANDS = {
    "run": ("run", "corridor.yaml", "--limit", "16", "--samples", "2", "--workers", str(WORKERS), "--out", "out", "--quiet"),
    "evolve": ("evolve", "evolve.yaml", "--out", "out", "--quiet"),
    "compare": ("compare", "compare.yaml", "--out", "out", "--quiet"),
}


def backend_words(server: Server, **options: float) -> tuple[str, ...]:
    """The options of `agentevolve run` that name this server as the model's backend, asked by an untiring client."""
    said = ",".join(f"{name}={value:g}" for name, value in (OPTIONS | options).items())
    return ("--model", "openai/test", "--api-base", server.url, "--model-options", said)


def prepared(folder: Path, server: Server, **options: float) -> dict[str, tuple[str, ...]]:
    """Write into `folder` what `COMMANDS` name, and give the command lines that ask this server there."""
    task_file(folder, length=2, limit=LIMIT)
    setup = SETUP.format(url=server.url, options=json.dumps(OPTIONS | options), workers=WORKERS)
    (folder / "evolve.yaml").write_text(setup + EVOLVE, "utf-8")
    (folder / "compare.yaml").write_text(setup + COMPARE, "utf-8")
    return COMMANDS | {"run": COMMANDS["run"] + backend_words(server, **options)}


def again(words: Sequence[str]) -> tuple[str, ...]:
    """The command line that goes on with what this one has begun."""
    return (*words, *(() if words[0] == "run" else ("--resume",)))


# --- what came of it ---


def runs(folder: Path) -> list[Run]:
    """Every run in `folder`, closed, to be read."""
    found = [Run(path.parent, quiet=True) for path in sorted(folder.rglob(JOURNAL))]
    for run in found:
        run.close()
    return found


def outcomes(folder: Path) -> dict[tuple[str, str], tuple[object, ...]]:
    """What became of each attempt in `folder`: by its run and id, whatever does not hang on the clock."""
    return {
        (str(run.folder.relative_to(folder)), one.id): (
            *(one.task.id, one.sample, one.seed, one.end, one.reward, one.error, one.recalled),
            tuple((turn.action, turn.observation) for turn in one.turns),
        )
        for run in runs(folder)
        for one in run.attempts().values()
    }


def makings(folder: Path) -> Counter[tuple[str, str, bool]]:
    """How often each attempt stands in the journals of `folder`: by its run and id, and whether it was lost."""
    lines = ((path, json.loads(line)) for path in folder.rglob(JOURNAL) for line in path.read_bytes().split(b"\n")[:-1])
    attempts = ((path, line["data"]) for path, line in lines if line["kind"] == "trajectory")
    return Counter((str(path.parent), one["id"], one["end"] == "error") for path, one in attempts)


def asked_again(folder: Path) -> Counter[tuple[str, str, bool]]:
    """How often each attempt, as `makings` names it, is made again because it was asked otherwise than the others."""
    named = ((run, ids) for run in runs(folder) for name, ids in run.facts.items() if name.startswith(AGAIN))
    return Counter((str(run.folder), id, False) for run, ids in named for id in ids)


def settled(folder: Path, server: Server, kills: int = 0) -> None:
    """Every token that the server gave is in the journals, once: exactly where it said how many, else by an estimate.

    What nobody can know is estimated or left out. A killed process leaves an estimate of the calls that it had under way, whether
    the server had answered them or not.
    """
    spent = sum((run.spent() for run in runs(folder)), Usage())
    tokens = spent.prompt_tokens + spent.completion_tokens
    most = ROUGH * (server.unreported() + server.unread()) + kills * WORKERS * RESERVED
    if kills:
        assert tokens - spent.estimated <= server.reported()
        assert server.reported() + server.unreported() <= tokens <= server.reported() + most
    else:
        assert tokens - spent.estimated == server.reported()
        assert server.unreported() <= spent.estimated <= most
