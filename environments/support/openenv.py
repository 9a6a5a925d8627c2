"""What is said to an OpenEnv server and what it says back: its description over HTTP, an episode over a WebSocket.

An episode is four kinds of JSON messages. The package's client for them would bring 45 packages of its server along (gradio,
fastmcp) and takes seconds to import.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from agentevolve.environments.support.schemas import inlined
from agentevolve.models.tools import Tool, read
from agentevolve.protocols import AgentevolveError

OPENING, PATIENCE = 10.0, 60.0  # seconds until a server is taken for dead that is asked to open, or anything else
CLOSING = 2.0  # seconds that an end is waited for
LARGEST = 4  # megabytes of a message or a description
TRIES, PAUSE = 20, 0.25  # until a session that has just been closed counts as free again; seconds
LOOPBACK = ("127.0.0.1", "::1", "localhost")  # no proxy is asked for these
_ANSWERED = ("VALIDATION_ERROR", "EXECUTION_ERROR")  # what the world says of an action, the session being as it was
FULL = "CAPACITY_REACHED"
ACT = "act"


def checked_address(url: str) -> str:
    """The address without a slash at its end. Raises AgentevolveError unless it is one, without a password in it."""
    try:
        parts = urlsplit(url)
        plain = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        parts, plain = urlsplit(""), False
    if not plain or parts.username or parts.password or parts.query or parts.fragment or not url.isprintable() or " " in url:
        told = repr(url[:100]) if not set("@?#") & set(url) else "URL"  # a password is not repeated
        raise AgentevolveError(f"openenv:{told}: an address such as http://127.0.0.1:8000 is wanted, with no name or key in it")
    return url.rstrip("/")


class Form(NamedTuple):
    """How an action is written: as the text of `field`, one of `actions` if there are any, else as a call of one of the `tools`.

    With `listed` the tools are the world's own, which it lists in an episode; else there is one, for the action's fields.
    """

    field: str = ""
    actions: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    listed: bool = False

    def with_tools(self, tools: list[Tool]) -> Form:
        """This form with the tools that the world has listed."""
        return self._replace(tools=tuple(tools))

    def payload(self, action: str) -> dict[str, Any] | str:
        """The action as the server takes it, or what is wrong with it."""
        if self.field:
            if self.actions and action.strip() not in self.actions:
                return f"That is not an action. The actions are: {', '.join(self.actions)}."
            return {self.field: action.strip() if self.actions else action.encode("utf-8", "replace").decode()}
        calls, names = read(action), [tool["function"]["name"] for tool in self.tools]
        if len(calls) != 1 or calls[0].name not in names or not isinstance(calls[0].arguments, dict):
            return f"Error: one call is understood here, of one of the tools: {', '.join(names)}"
        [call] = calls
        if self.listed:
            return {"type": "call_tool", "tool_name": call.name, "arguments": call.arguments}
        return dict(call.arguments)


@functools.cache
def form_of(url: str) -> Form:
    """The form of the actions of the world at `url`. Raises AgentevolveError for a server that is away or says something else."""
    import httpx

    text = b""
    try:
        near = urlsplit(url).hostname in LOOPBACK
        with httpx.stream("GET", f"{url}/schema", timeout=OPENING, trust_env=not near) as answer:
            for part in answer.iter_bytes():
                text += part
                if len(text) > LARGEST << 20:
                    break
            status = answer.status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise AgentevolveError(f"openenv:{url} does not answer: {_said(error)}") from None
    try:
        action = json.loads(text)["action"] if status == 200 else None
        return _form(inlined(action))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise AgentevolveError(
            f"openenv:{url} is no OpenEnv server of a version that is known: GET {url}/schema answers {status}, without the form"
            " of an action"
        ) from None


def _form(action: dict[str, Any]) -> Form:
    if {"tool_name", "arguments"} <= set(action["properties"]):
        return Form(listed=True)
    fields = {name: shape for name, shape in action["properties"].items() if name != "metadata"}
    required = [name for name in action.get("required", fields) if name in fields]
    if len(required) == 1 and fields[required[0]].get("type") == "string":
        named = fields[required[0]].get("enum", ())
        return Form(required[0], tuple(sorted({str(one) for one in named})))
    shape = {"type": "object", "properties": fields, "required": required}
    return Form(tools=(_tool(ACT, action.get("description", ""), shape),))


def _tool(name: Any, about: Any, parameters: dict[str, Any]) -> Tool:
    shape = inlined(dict(parameters))
    return {"type": "function", "function": {"name": str(name), "description": str(about)[:1000], "parameters": shape}}


class Seen(NamedTuple):
    """What came back: the observation's fields, the step's reward, and whether the episode is over."""

    observation: dict[str, Any]
    reward: float
    done: bool


class Session:
    """An episode's own line to the server at `url`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._line: Any = None
        self._held = contextlib.ExitStack()

    def reset(self, given: dict[str, Any], tries: int = TRIES) -> Seen:
        """Begin. Raises AgentevolveError where no session or no such reset is taken, RuntimeError when the world fails."""
        self._open()
        try:
            return self._ask("reset", given)
        except Refused as refused:
            self.close()
            if refused.code == FULL and tries > 1:
                time.sleep(PAUSE)
                return self.reset(given, tries - 1)
            if refused.code == "EXECUTION_ERROR":
                raise RuntimeError(f"openenv:{self._url}: reset: {refused}") from None
            more = "; give no more --workers than it has sessions" if refused.code == FULL else ""
            raise AgentevolveError(f"openenv:{self._url}: reset: {refused}{more}") from None

    def step(self, action: dict[str, Any]) -> Seen:
        """Do something. What the world refuses is an observation; raises RuntimeError when the server fails."""
        try:
            return self._ask("step", action)
        except Refused as refused:
            if refused.code not in _ANSWERED:
                self.close()
                raise RuntimeError(f"openenv:{self._url}: step: {refused}") from None
            return Seen({"error": f"Error: {refused}"}, 0.0, False)

    def tools(self) -> list[Tool]:
        """The MCP tools of the world. Raises RuntimeError where it lists none."""
        found = self.step({"type": "list_tools"}).observation.get("tools")
        try:
            return [_tool(one["name"], one.get("description", ""), one["input_schema"]) for one in found or [{}]]
        except (TypeError, ValueError, KeyError, AttributeError):
            raise RuntimeError(f"openenv:{self._url}: the world lists no tools that can be read") from None

    def close(self) -> None:
        """Hang up; closing twice is allowed."""
        line, self._line = self._line, None
        if line is not None:
            with contextlib.suppress(Exception):
                line.send(json.dumps({"type": "close"}))
            with contextlib.suppress(Exception):
                self._held.close()

    def _open(self) -> None:
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        host = urlsplit(self._url).hostname or ""
        try:
            address, direct = f"ws{self._url.removeprefix('http')}/ws", {"proxy": None} if host in LOOPBACK else {}
            waits = {"open_timeout": OPENING, "close_timeout": CLOSING}
            self._line = self._held.enter_context(connect(address, max_size=LARGEST << 20, **waits, **direct))
        except (OSError, WebSocketException) as error:  # a timeout is an OSError
            raise AgentevolveError(f"openenv:{self._url} takes no session: {_said(error)}") from None

    def _ask(self, kind: str, data: dict[str, Any]) -> Seen:
        """The observation that is answered. Raises Refused for an error that the server tells, RuntimeError for all else."""
        from websockets.exceptions import ConnectionClosed, WebSocketException

        if self._line is None:
            raise RuntimeError(f"openenv:{self._url}: the session is closed")
        try:
            with contextlib.suppress(ConnectionClosed):  # a server that is full says so and hangs up
                self._line.send(json.dumps({"type": kind, "data": data}))
            answer = json.loads(self._line.recv(timeout=PATIENCE))
            if answer["type"] == "error":
                code, text = str(answer["data"].get("code")), answer["data"].get("message")
                raise Refused(_said(text) or code, code)
            return _seen(answer["data"])
        except (OSError, WebSocketException, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            self.close()  # what it answers now would be taken for the answer to the next request
            why = f"no answer within {PATIENCE:g} seconds" if isinstance(error, TimeoutError) else _said(error)
            raise RuntimeError(f"openenv:{self._url}: {kind}: {why}") from None


class Refused(Exception):
    """An error that the server has told, with its code."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


def _seen(data: dict[str, Any]) -> Seen:
    """The answer's parts. Raises ValueError where they are not what they have to be."""
    observation, reward, done = data["observation"], data.get("reward"), data.get("done", False)
    right = isinstance(observation, dict) and isinstance(reward, int | float | None) and isinstance(done, bool)
    if not right or not math.isfinite(reward or 0.0):
        raise ValueError(f"an answer in a form that is not known: {json.dumps(data)[:200]}")
    return Seen(observation, float(reward or 0.0), done)


def _said(error: object) -> str:
    """What is told, in one line."""
    return " ".join(str(error or "").split())[:300] or type(error).__name__
