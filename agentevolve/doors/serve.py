"""One address for every harness: our policy behind OpenAI's chat route, each conversation journalled as an attempt.

POST /v1/chat/completions   as OpenAI has it (also streamed), with vLLM's structured_outputs.choice; the header X-Agentevolve-Task
                            names the task, X-Agentevolve-Split its split: what is not `train` is never learnt from; the answer's
                            header X-Agentevolve-Conversation names the conversation
POST /v1/reward             {"conversation" or "task": …, "reward": 0 to 1}: how it ended; `distill` and `evolve` learn from it
GET  /v1/models             the one model
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from agentevolve.doors.hosts import is_known
from agentevolve.doors.talks import Talks, Wanted
from agentevolve.models.tools import Call as ToolCall
from agentevolve.models.tools import read, written
from agentevolve.protocols import AgentevolveError, ModelError, Reply
from agentevolve.records import SPLITS, Message

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

NAME = "agentevolve"
LARGEST = 4_000_000  # bytes of a request
KNOWN = ("temperature", "seed")
KEYED = "authorization"  # the header
ROLES = {"system": "system", "developer": "system", "user": "user", "tool": "user", "function": "user", "assistant": "assistant"}
TOLD = {"n": 1, "logprobs": False}  # what is asked otherwise is refused: it would be answered by something else


class BadRequest(Exception):
    """What is wrong with a request, with its HTTP status."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


def application(talks: Talks, key: str, hosts: Collection[str]) -> Starlette:
    """The app that answers with `talks` whoever knows `key` and asks one of the `hosts` (names with ports)."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    def guarded(answer: Any) -> Any:
        async def route(request: Request) -> Response:
            try:
                _check(request, key, hosts)
                said: Response = await answer(request)
                return said
            except BadRequest as wrong:
                return JSONResponse(_error(str(wrong), wrong.status), wrong.status)

        return route

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": NAME, "object": "model", "created": 0, "owned_by": NAME}]})

    async def chat(request: Request) -> Response:
        return await _chat(talks, request)

    async def reward(request: Request) -> Response:
        return await _reward(talks, request)

    routes = [
        Route("/v1/models", guarded(models)),
        Route("/v1/chat/completions", guarded(chat), methods=["POST"]),
        Route("/v1/reward", guarded(reward), methods=["POST"]),
    ]

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        talks.close()

    return Starlette(routes=routes, lifespan=lifespan)


def _check(request: Request, key: str, hosts: Collection[str]) -> None:
    """Refuse who does not know the key, and a web page whose name was made to point here."""
    if not is_known(request.headers.get("host", ""), hosts):
        raise BadRequest("this host is not served", 403)
    _, _, given = request.headers.get(KEYED, "").partition(" ")
    if not secrets.compare_digest(given.encode(), key.encode()):
        raise BadRequest("the key is not the one that agentevolve serve has printed", 401)


async def _chat(talks: Talks, request: Request) -> Response:
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse, StreamingResponse

    body = await _body(request)
    messages, tools = [_message(one) for one in _list(body, "messages")], body.get("tools") or []
    if not messages or messages[-1].role == "assistant":
        raise BadRequest("messages: the last one has to be the user's")
    wanted = _wanted(request, body, tools)
    try:
        reply, talk = await run_in_threadpool(talks.answer, messages, wanted, **_asked(body))
    except ModelError as error:
        raise BadRequest(str(error), 502) from None
    except AgentevolveError as error:
        raise BadRequest(str(error), 503) from None
    headers = {"X-Agentevolve-Conversation": quote(talk.id)}
    made = _completion(reply, bool(tools))
    if body.get("stream"):
        return StreamingResponse(_chunks(made), media_type="text/event-stream", headers=headers)
    return JSONResponse(made, headers=headers)


async def _reward(talks: Talks, request: Request) -> Response:
    from starlette.responses import JSONResponse

    body = await _body(request)
    value = body.get("reward")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BadRequest("reward: a number from 0 to 1 is wanted")
    name = body.get("conversation") or (f"served/{body['task']}" if body.get("task") else "")
    if not isinstance(name, str) or not name:
        raise BadRequest("conversation or task: the name of one is wanted")
    found = talks.reward(name, float(value))
    if not found:
        raise BadRequest(f"no conversation {name[:100]!r} waits for a reward", 404)
    return JSONResponse({"rewarded": found})


async def _body(request: Request) -> dict[str, Any]:
    """The JSON mapping that was sent, no more of it being read than may be."""
    read = b""
    async for part in request.stream():
        read += part
        if len(read) > LARGEST:
            raise BadRequest(f"the request is larger than {LARGEST:,} bytes", 413)
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


def _asked(body: Mapping[str, Any]) -> dict[str, Any]:
    """How the answer is wanted, as far as it can be."""
    for name, known in TOLD.items():
        if body.get(name) not in (None, known):
            raise BadRequest(f"{name}: only {json.dumps(known)} is answered")
    found = {name: body[name] for name in KNOWN if isinstance(body.get(name), int | float)}
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    return found | ({"max_tokens": most} if isinstance(most, int) and most > 0 else {})


def _message(one: Mapping[str, Any]) -> Message:
    """A message as the house has it: parts of text joined, a tool's result as the user's, calls as their text."""
    roles = {
        "system": "system",
        "developer": "system",
        "user": "user",
        "tool": "user",
        "function": "user",
        "assistant": "assistant",
    }
    role = one.get("role")
    if role not in roles:
        raise BadRequest(f"messages: the role {str(role)[:50]!r} is not known; known: {', '.join(roles)}")
    content, calls = one.get("content"), one.get("tool_calls")
    if calls:
        return Message(role="assistant", content=_written(calls))
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        if len(texts) < len(content):
            raise BadRequest("messages: parts of text alone are read")
        content = "".join(map(str, texts))
    return Message.model_validate({"role": ROLES[role], "content": "" if content is None else str(content)})


def _written(calls: Any) -> str:
    try:
        return written([ToolCall(one["function"]["name"], json.loads(one["function"]["arguments"] or "{}")) for one in calls])
    except (TypeError, KeyError, ValueError):
        raise BadRequest("messages: tool_calls that nobody can read") from None


def _wanted(request: Request, body: Mapping[str, Any], tools: Sequence[dict[str, Any]]) -> Wanted:
    """What is said of the task in the headers, and of the answer in the body; choices in vLLM's way."""
    split, stop = request.headers.get("x-agentevolve-split", "train"), body.get("stop") or []
    if split not in SPLITS:
        raise BadRequest(f"X-Agentevolve-Split: {split[:50]!r} is not known; known: {', '.join(SPLITS)}")
    held = body.get("structured_outputs") or {}
    choices = (held.get("choice") if isinstance(held, dict) else None) or []
    if not isinstance(choices, list) or not all(isinstance(one, str) and one for one in choices):
        raise BadRequest("structured_outputs.choice: a list of texts is wanted")
    return Wanted(
        task=request.headers.get("x-agentevolve-task", ""),
        split=split,
        choices=tuple(choices),
        tools=tuple(tools),
        stop=(stop,) if isinstance(stop, str) else tuple(map(str, stop)),
    )


def _completion(reply: Reply, tools: bool) -> dict[str, Any]:
    """The answer in OpenAI's form."""
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
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": NAME,
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}],
        "usage": {
            "prompt_tokens": used.prompt_tokens,
            "completion_tokens": used.completion_tokens,
            "total_tokens": used.prompt_tokens + used.completion_tokens,
        },
    }


def _chunks(made: dict[str, Any]) -> Iterator[str]:
    """The answer as a stream: one piece, its end, and what it cost."""
    [choice] = made["choices"]
    head = {name: made[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    delta = dict(choice["message"])
    if "tool_calls" in delta:
        delta["tool_calls"] = [{"index": place, **one} for place, one in enumerate(delta["tool_calls"])]
    pieces = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]},
        {"choices": [], "usage": made["usage"]},
    ]
    for piece in pieces:
        yield f"data: {json.dumps(head | piece)}\n\n"
    yield "data: [DONE]\n\n"


def _error(text: str, status: int) -> dict[str, Any]:
    return {"error": {"message": text, "type": "invalid_request_error" if status < 500 else "server_error", "code": status}}
