"""One address for every harness: our policy behind OpenAI's chat route, each conversation journalled as an attempt.

POST /v1/chat/completions   as OpenAI has it (also streamed), with vLLM's structured_outputs.choice; the header X-Agentevolve-Task
                            names the task, X-Agentevolve-Split its split: what is not `train` is never learnt from; the answer's
                            header X-Agentevolve-Conversation names the conversation. Of how to sample, temperature, seed,
                            max_tokens and stop are heeded; what would change an answer's form (n, logprobs, response_format) is
                            refused, all else is passed over
POST /v1/reward             {"conversation" or "task": …, "reward": 0 to 1}: how it ended; `distill` and `evolve` learn from it
GET  /v1/models             the one model

Whatever is wrong is answered in OpenAI's form of an error, one line of it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from agentevolve.doors.hosts import is_known
from agentevolve.doors.talks import SERVED, Talks, Wanted
from agentevolve.models.tools import Call as ToolCall
from agentevolve.models.tools import read, written
from agentevolve.protocols import AgentevolveError, ModelError, Reply
from agentevolve.records import SPLITS, Message

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

NAME = "agentevolve"
LARGEST = 4_000_000  # bytes of a request
HEARD_OUT = 64 * LARGEST  # bytes of one that is too large: who is still sending would not hear why it was refused
HEAD = 64 * 1024  # bytes of a request's line and headers
PATIENCE = 60.0  # seconds until a request has to be here whole
KEYED = "authorization"  # the header
LONGEST = 200  # characters of a task's name
ROLES = {"system": "system", "developer": "system", "user": "user", "tool": "user", "function": "user", "assistant": "assistant"}
# what is asked otherwise is refused: it would be answered by something else
TOLD: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "response_format": ({"type": "text"},),
    "tool_choice": ("auto", "required"),
}
CODES = {401: "invalid_api_key", 404: "not_found", 408: "request_timeout", 413: "request_too_large", 429: "rate_limit_exceeded"}


class BadRequest(Exception):
    """What is wrong with a request, with its HTTP status."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


def application(talks: Talks, key: str, hosts: Collection[str], patience: float = PATIENCE) -> Starlette:
    """The app that answers with `talks` whoever knows `key` and asks one of the `hosts` (names with ports).

    `patience`: seconds until a request has to be here whole.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
    from starlette.routing import Route

    def guarded(answer: Any) -> Any:
        async def route(request: Request) -> Response:
            try:
                read = await _read(request, patience)
                _check(request, key, hosts)
                said: Response = await answer(request, read)
                return said
            except BadRequest as wrong:
                return _error(str(wrong), wrong.status)
            except ClientDisconnect:
                return _error("the request did not end")  # nobody hears it
            except Exception as error:
                print(f"agentevolve serve: {type(error).__name__}: {' '.join(str(error).split())[:500]}", file=sys.stderr)
                return _error("the server failed, and says why where it runs", 500)

        return route

    async def models(request: Request, read: bytes) -> Response:
        model = {"id": NAME, "object": "model", "created": 0, "owned_by": NAME}
        wanted = request.path_params.get("name", "")
        if wanted not in ("", NAME):
            raise BadRequest(f"there is no model {wanted[:100]!r}; known: {NAME}", 404)
        return _json(model if wanted else {"object": "list", "data": [model]})

    async def chat(request: Request, read: bytes) -> Response:
        return await _chat(talks, request, _body(read))

    async def reward(request: Request, read: bytes) -> Response:
        return _reward(talks, _body(read))

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _error(f"{request.method} {request.url.path[:100]}: {error.detail}", error.status_code)

    routes = [
        Route("/v1/models", guarded(models)),
        Route("/v1/models/{name:path}", guarded(models)),
        Route("/v1/chat/completions", guarded(chat), methods=["POST"]),
        Route("/v1/reward", guarded(reward), methods=["POST"]),
    ]

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        talks.close()

    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: refused})


def server(app: Starlette, patience: float = PATIENCE) -> uvicorn.Server:
    """What serves the app, to be run with its sockets: a head that is no HTTP, too large or never ends is one line too."""
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.loop.call_later(patience, self.give_up)

        def give_up(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.refuse(f"the request did not begin within {patience:g} seconds", 408)

        def send_400_response(self, msg: str) -> None:
            self.refuse(f"{msg.rstrip('.')}; a request's headers have at most {HEAD:,} bytes", 400)

        def refuse(self, text: str, status: int) -> None:
            said = _error(text, status)
            head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
            head += f"Content-Length: {len(said.body)}\r\nConnection: close\r\n\r\n"
            self.transport.write(head.encode() + bytes(said.body))
            self.transport.close()

    # the other parser that uvicorn may find knows no largest head
    config = uvicorn.Config(app, log_level="error", server_header=False, http=Protocol, h11_max_incomplete_event_size=HEAD)
    return uvicorn.Server(config)


def _check(request: Request, key: str, hosts: Collection[str]) -> None:
    """Refuse who does not know the key, and a web page whose name was made to point here."""
    if not is_known(request.headers.get("host", ""), hosts):
        raise BadRequest("this host is not served", 403)
    _, _, given = request.headers.get(KEYED, "").partition(" ")
    if not secrets.compare_digest(given.encode(), key.encode()):
        raise BadRequest("the key is not the one that agentevolve serve has printed", 401)


async def _chat(talks: Talks, request: Request, body: dict[str, Any]) -> Response:
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import StreamingResponse

    messages, tools = [_message(one) for one in _list(body, "messages")], _tools(body)
    if not messages or messages[-1].role == "assistant":
        raise BadRequest("messages: the last one has to be the user's")
    wanted, asked = _wanted(request, body, tools), _asked(body)
    try:
        reply, talk = await run_in_threadpool(talks.answer, messages, wanted, **asked)
    except ModelError as error:
        raise BadRequest(str(error), error.status if error.status in (400, 413, 422, 429) else 502) from None
    except AgentevolveError as error:
        raise BadRequest(str(error), 503) from None
    headers = {"X-Agentevolve-Conversation": quote(talk.id)}
    made = _completion(reply, bool(tools), asked.get("max_tokens"))
    if body.get("stream"):
        counted = isinstance(options := body.get("stream_options"), dict) and bool(options.get("include_usage"))
        return StreamingResponse(_chunks(made, counted), media_type="text/event-stream", headers=headers)
    return _json(made, headers=headers)


def _reward(talks: Talks, body: dict[str, Any]) -> Response:
    value = body.get("reward")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BadRequest("reward: a number from 0 to 1 is wanted")
    name = body.get("conversation") or (f"{SERVED}{body['task']}" if body.get("task") else "")
    if not isinstance(name, str) or not name:
        raise BadRequest("conversation or task: the name of one is wanted")
    found = talks.reward(name, float(value))
    if not found:
        raise BadRequest(f"no conversation {name[:100]!r} waits for a reward", 404)
    return _json({"rewarded": found})


async def _read(request: Request, patience: float) -> bytes:
    """All that was sent, no more of it being kept than may be."""
    kept, size = bytearray(), 0
    try:
        async with asyncio.timeout(patience):
            async for part in request.stream():
                size += len(part)
                if size <= LARGEST:
                    kept += part
                elif size > HEARD_OUT:
                    break
        late = False
    except TimeoutError:
        late = True
    if size > LARGEST:
        raise BadRequest(f"the request is larger than {LARGEST:,} bytes", 413)
    if late:
        raise BadRequest(f"the request did not end within {patience:g} seconds", 408)
    return bytes(kept)


def _body(read: bytes) -> dict[str, Any]:
    """The JSON mapping that was sent."""
    try:
        value = json.loads(read)
    except (ValueError, RecursionError):
        raise BadRequest("the request is not JSON") from None
    if not isinstance(value, dict):
        raise BadRequest("the request is not a JSON object")
    return value


def _list(body: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = body.get(name)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise BadRequest(f"{name}: a list of objects is wanted")
    return found


def _tools(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The functions that may be called, each with a schema of its parameters."""
    tools = _list(body, "tools") if body.get("tools") else []
    for tool in tools:
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
            raise BadRequest("tools: each has to be a function with a name")
        if not isinstance(function.setdefault("parameters", {"type": "object", "properties": {}}), dict):
            raise BadRequest(f"tools: the parameters of {function['name'][:100]!r} are not a schema")
    return tools


def _asked(body: Mapping[str, Any]) -> dict[str, Any]:
    """How the answer is wanted, as far as it can be."""
    for name, known in TOLD.items():
        if body.get(name) not in (None, *known):
            raise BadRequest(f"{name}: only {' or '.join(map(json.dumps, known))} is answered")
    most = "max_tokens" if body.get("max_completion_tokens") is None else "max_completion_tokens"
    found = {
        "temperature": _number(body, "temperature", 0, 2, float | int),
        "seed": _number(body, "seed", -(2**63), 2**64 - 1),
        "max_tokens": _number(body, most, 1, 2**31 - 1),
    }
    if found["seed"] is not None:
        found["seed"] %= 2**31  # what every backend takes
    return {name: value for name, value in found.items() if value is not None}


def _number(body: Mapping[str, Any], name: str, low: int, high: int, kind: Any = int) -> Any:
    """The number of that name, or None where none was given."""
    value = body.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high):
        raise BadRequest(f"{name}: a {'whole ' if kind is int else ''}number from {low} to {high} is wanted")
    return value


def _message(one: Mapping[str, Any]) -> Message:
    """A message as the house has it: parts of text joined, a tool's result as the user's, calls as their text."""
    role = one.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise BadRequest(f"messages: the role {str(role)[:50]!r} is not known; known: {', '.join(ROLES)}")
    content, calls = one.get("content"), one.get("tool_calls")
    if calls:
        return Message(role="assistant", content=_written(calls))
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        words = [text for text in texts if isinstance(text, str)]
        content = "".join(words) if len(words) == len(content) else 0
    if not isinstance(content, str | None):
        raise BadRequest("messages: a content is text, or parts of text alone")
    return Message.model_validate({"role": ROLES[role], "content": content or ""})


def _written(calls: Any) -> str:
    try:
        return written([ToolCall(one["function"]["name"], json.loads(one["function"]["arguments"] or "{}")) for one in calls])
    except (TypeError, KeyError, ValueError, RecursionError):
        raise BadRequest("messages: tool_calls that nobody can read") from None


def _wanted(request: Request, body: Mapping[str, Any], tools: Sequence[dict[str, Any]]) -> Wanted:
    """What is said of the task in the headers, and of the answer in the body; choices in vLLM's way."""
    split, stop = request.headers.get("x-agentevolve-split", "train"), body.get("stop") or []
    task = request.headers.get("x-agentevolve-task", "")
    if len(task) > LONGEST:
        raise BadRequest(f"X-Agentevolve-Task: a name of at most {LONGEST} characters is wanted")
    if split not in SPLITS:
        raise BadRequest(f"X-Agentevolve-Split: {split[:50]!r} is not known; known: {', '.join(SPLITS)}")
    held = body.get("structured_outputs") or {}
    choices = (held.get("choice") if isinstance(held, dict) else None) or []
    if not isinstance(choices, list) or not all(isinstance(one, str) and one for one in choices):
        raise BadRequest("structured_outputs.choice: a list of texts is wanted")
    stops = (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, list) else (0,)
    if not all(isinstance(one, str) for one in stops):
        raise BadRequest("stop: a text, or a list of texts is wanted")
    return Wanted(
        task=task,
        split=split,
        choices=tuple(choices),
        tools=tuple(tools),
        stop=stops,
    )


def _completion(reply: Reply, tools: bool, most: int | None) -> dict[str, Any]:
    """The answer in OpenAI's form; as many tokens as were asked for at `most` are taken for an answer that was cut off."""
    calls = read(reply.text) if tools else []
    message: dict[str, Any] = {"role": "assistant", "content": None if calls else reply.text}
    if calls:
        message["tool_calls"] = [
            {
                "id": f"call_{secrets.token_hex(8)}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            for call in calls
        ]
    used = reply.usage
    whole = "tool_calls" if calls else "stop"
    ended = "length" if most and used.completion_tokens >= most and not calls else whole
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": NAME,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": ended}],
        "usage": {
            "prompt_tokens": used.prompt_tokens,
            "completion_tokens": used.completion_tokens,
            "total_tokens": used.prompt_tokens + used.completion_tokens,
        },
    }


def _chunks(made: dict[str, Any], counted: bool) -> Iterator[str]:
    """The answer as a stream: one piece, its end, and what it cost where that is to be `counted`."""
    [choice] = made["choices"]
    head = {name: made[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    delta = dict(choice["message"])
    if "tool_calls" in delta:
        delta["tool_calls"] = [{"index": place, **one} for place, one in enumerate(delta["tool_calls"])]
    pieces = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]},
        *([{"choices": [], "usage": made["usage"]}] if counted else []),
    ]
    for piece in pieces:
        yield f"data: {json.dumps(head | piece)}\n\n"
    yield "data: [DONE]\n\n"


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in letters that any encoding takes: what was said may hold halves of them."""
    from starlette.responses import Response

    return Response(json.dumps(value), status, dict(headers or {}), "application/json")


def _error(text: str, status: int = 400) -> Response:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return _json({"error": {"message": text, "type": kind, "param": None, "code": CODES.get(status)}}, status)
