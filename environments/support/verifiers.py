"""Episodes that the package verifiers plays while somebody else answers for its model.

The package calls a model behind an address and cannot be called step by step. So it runs in an event loop of its own, its agent
is a harness of ours in this process, and the address behind which it looks for the model is ours too. What comes to that address
waits there until `Episode.answer` says what is to go back.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import itertools
import json
import logging
import math
import queue
import secrets
import sys
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from importlib.metadata import version
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, NamedTuple

from agentevolve.environments.support.schemas import inlined
from agentevolve.models.tools import Tool, read
from agentevolve.protocols import AgentevolveError

HARNESS = "agentevolve_harness"  # by which the package finds ours: it looks for a module of that name
NEEDED = ("AgentConfig", "EnvConfig", "EvalClientConfig", "ModelContext", "ProgramResult")
MODEL = "agentevolve"
PATIENCE = 600.0  # seconds until an episode that neither asks nor ends counts as hung
_lock = threading.Lock()


class Asked(NamedTuple):
    """What a model is asked: the system's words where they are new, what was said since its last answer, and its tools."""

    system: str
    said: str
    tools: tuple[Tool, ...]


class Ended(NamedTuple):
    """An episode that is over: its reward as the package has it, and whether a limit cut it off."""

    reward: float
    cut: bool


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """The event loop in which the package lives, in a thread of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="verifiers", daemon=True).start()
    return loop


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run_coroutine_threadsafe(work, _loop()).result(PATIENCE)


@functools.cache
def _package() -> Any:
    """The package, with our harness where it looks for one. Raises AgentevolveError for a version that is not known."""
    logging.getLogger("verifiers").addHandler(logging.NullHandler())  # what fails is told by the episode
    try:
        vf: Any = importlib.import_module("verifiers.v1")
        made = ModuleType(HARNESS)
        made.__dict__.update(Acting=_acting(vf), __all__=["Acting"])
        missing = [name for name in NEEDED if not hasattr(vf, name)]
        why = f"it has no {', '.join(missing)}" if missing else ""
    except (ImportError, AttributeError) as error:
        why = str(error)
    if why:
        raise AgentevolveError(f"verifiers 0.4 is wanted, and {version('verifiers')} is installed: {why}")
    sys.modules[HARNESS] = made
    return vf


def _acting(vf: Any) -> type:
    """The harness: it asks, calls the tools that are named, and asks again."""
    from verifiers.v1.dialects.chat import message_to_wire
    from verifiers.v1.harnesses.utils.mcp import call_mcp, connect_mcp

    class Acting(vf.Harness[vf.HarnessConfig]):  # type: ignore[misc, name-defined]
        APPENDS_SYSTEM_PROMPT = SUPPORTS_MCP = SUPPORTS_RESUME = True
        EXECUTES_CODE = NEEDS_CONTAINER = False

        async def launch(self, ctx, trace, runtime, endpoint, secret, mcp_urls, data):  # type: ignore[no-untyped-def]
            import contextlib

            import httpx

            system, prompt = self.resolve_prompt(data)
            messages = [{"role": "system", "content": system}] if system else []
            messages += [{"role": "user", "content": prompt}] if isinstance(prompt, str) else map(message_to_wire, prompt or [])
            servers = {name: {"url": url, "timeout": self.config.tool_timeout} for name, url in mcp_urls.items()}
            async with contextlib.AsyncExitStack() as stack:
                tools, places, lines = await connect_mcp({"mcpServers": servers}, stack)
                client = await stack.enter_async_context(httpx.AsyncClient(timeout=None, trust_env=False))
                asked = {"model": ctx.model, "messages": messages} | ({"tools": tools} if tools else {})
                while True:
                    answer = await client.post(
                        f"{endpoint}/chat/completions", json=asked, headers={"Authorization": f"Bearer {secret}"}
                    )
                    if answer.status_code != 200:  # also when a limit lets it ask no more
                        return vf.ProgramResult(1, "", answer.text[:500])
                    messages.append(answer.json()["choices"][0]["message"])
                    calls = messages[-1].get("tool_calls") or []
                    if not calls:
                        return vf.ProgramResult(0, "", "")
                    for call in calls:
                        name, given = call["function"]["name"], call["function"]["arguments"]
                        try:
                            said = await call_mcp(lines, places, name, json.loads(given))
                        except Exception as error:  # what a tool makes of an odd call is the agent's to read
                            said = f"error: {error}"
                        messages.append({"role": "tool", "tool_call_id": call["id"], "content": said})

    return Acting


class Episode:
    """One episode under way: `asked` says what it wants or that it has ended, `answer` what the agent says to that."""

    def __init__(self) -> None:
        self.name = secrets.token_urlsafe(12)
        self._told: queue.Queue[Asked | Ended | str] = queue.Queue()
        self._waiting: asyncio.Future[str] | None = None
        self._playing: Future[Any] | None = None
        self._system = ""

    def asked(self) -> Asked | Ended:
        """The next thing. Raises RuntimeError when the package fails or hangs."""
        try:
            told = self._told.get(timeout=PATIENCE)
        except queue.Empty:
            told = f"nothing was asked for {PATIENCE:g} seconds"
        if isinstance(told, str):
            self.close()
            raise RuntimeError(f"verifiers: {told}")
        return told

    def answer(self, action: str) -> None:
        """Say this to what was asked last."""
        waiting = self._waiting
        assert waiting is not None
        _loop().call_soon_threadsafe(lambda: waiting.done() or waiting.set_result(_whole(action)))

    def close(self) -> None:
        """End it; closing twice is allowed."""
        if self._playing is not None:
            self._playing.cancel()
        _models().pop(self.name, None)

    async def play(self, env: Any, task: Any, address: str) -> None:
        """The whole episode, in the package's loop."""
        vf = _package()
        try:
            client = vf.EvalClientConfig(base_url=f"{address}/{self.name}/v1", api_key_var="AGENTEVOLVE_NO_KEY")
            done = await env.run_episode(task, vf.ModelContext(model=MODEL, client=client))
            errors = [one for part in (done, *done.traces) for one in part.errors]
            traces = [one for one in done.traces if one.agent is None or one.agent.trainable]
            reward = sum(one.reward for one in traces) / max(1, len(traces))
            if not done.ok or not traces or not math.isfinite(reward):
                why = f"{errors[-1].type}: {errors[-1].message}" if errors else "it has no reward"
                self._told.put(" ".join(why.split())[:400])
            else:
                self._told.put(Ended(float(reward), any(one.stop_condition == "max_turns" for one in traces)))
        except Exception as error:
            self._told.put(" ".join(f"{type(error).__name__}: {error}".split())[:400])

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The agent's answer to a request, in OpenAI's form."""
        self._waiting = asyncio.get_running_loop().create_future()
        self._told.put(self._read(body))
        action = await self._waiting
        names = [tool["function"]["name"] for tool in body.get("tools") or ()]
        calls = [call for call in read(action) if call.name in names]
        message: dict[str, Any] = {"role": "assistant", "content": None if calls else action}
        if calls:
            message["tool_calls"] = [
                {"id": f"call_{secrets.token_hex(8)}", "type": "function",
                 "function": {"name": call.name, "arguments": _whole(json.dumps(call.arguments, ensure_ascii=False))}}
                for call in calls
            ]  # fmt: skip
        ended = "tool_calls" if calls else "stop"
        return {
            "id": f"chatcmpl-{secrets.token_hex(8)}",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": ended}],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        }

    def _read(self, body: Mapping[str, Any]) -> Asked:
        messages = body.get("messages") or []
        last = max((place for place, one in enumerate(messages) if one["role"] == "assistant"), default=-1)
        system = "\n".join(_words(one) for one in messages if one["role"] in ("system", "developer"))
        new, self._system = system if system != self._system else "", system
        said = "\n".join(_words(one) for one in messages[last + 1 :] if one["role"] not in ("system", "developer"))
        functions = [tool["function"] for tool in body.get("tools") or ()]
        tools = tuple(
            {"type": "function", "function": {"name": str(one["name"]), "description": str(one.get("description", ""))[:1000],
             "parameters": inlined(dict(one.get("parameters") or {"type": "object", "properties": {}}))}}
            for one in functions
        )  # fmt: skip
        return Asked(new, said, tools)


class Opened:
    """A taskset with its environment, ready to be played, and its tasks as far as they were looked at."""

    def __init__(self, env: Any, name: str) -> None:
        self._env, self._name = env, name
        self._tasks: list[Any] = []
        self._rest = iter(env.taskset)

    def begin(self, place: int) -> Episode:
        """An episode of the task at this place. Raises AgentevolveError where there is none."""
        with _lock:
            try:
                self._tasks += itertools.islice(self._rest, max(0, place + 1 - len(self._tasks)))
            except Exception as error:
                raise RuntimeError(f"verifiers:{self._name}: its tasks cannot be loaded: {_told(error)}") from None
        if place >= len(self._tasks):
            raise AgentevolveError(f"verifiers:{self._name}: seed {place} is beyond its {len(self._tasks)} tasks")
        episode = Episode()
        _models()[episode.name] = episode
        episode._playing = asyncio.run_coroutine_threadsafe(episode.play(self._env, self._tasks[place], _address()), _loop())
        return episode


def opened(name: str, taskset: dict[str, Any], env: dict[str, Any], limit: int) -> Opened:
    """The taskset, loaded once. Raises AgentevolveError for a name or an option that it does not have."""
    vf = _package()
    with _lock:
        return _opened(vf, name, json.dumps([taskset, env], sort_keys=True), limit)


@functools.lru_cache(16)
def _opened(vf: Any, name: str, options: str, limit: int) -> Opened:
    loaders = importlib.import_module("verifiers.v1.utils.loaders")
    taskset, env = json.loads(options)
    try:
        loaders.taskset_class(name)
        kind = loaders.env_config_type(name, env.get("id", ""))
        roles = [role for role, field in kind.model_fields.items() if isinstance(field.default, vf.AgentConfig)]
        seat = {"harness": {"id": HARNESS}, "runtime": {"type": "subprocess"}, "max_turns": limit}
        seats = {role: {**seat, **env.get(role, {}), "harness": seat["harness"]} for role in roles}
        made = loaders.load_environment(loaders.resolve_env_config({**env, **seats, "taskset": {**taskset, "id": name}}))
        _run(made.serving().__aenter__())  # until this process ends: what it starts ends with it
        return Opened(made, name)
    except ModuleNotFoundError as error:
        shipped = ", ".join(one.name for one in iter_modules(importlib.import_module("verifiers.v1.tasksets").__path__))
        raise AgentevolveError(
            f"verifiers:{name}: there is no such taskset ({_told(error)}); it has to be installed; shipped are {shipped}"
        ) from None
    except Exception as error:  # a module of anybody's: whatever it raises
        raise AgentevolveError(f"verifiers:{name} cannot be loaded: {_told(error)}") from None


@functools.cache
def _models() -> dict[str, Episode]:
    """The episodes under way, by the part of the address that is theirs."""
    return {}


@functools.cache
def _address() -> str:
    """Where the package finds its model: a server on loopback that hands each request to its episode."""
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        episode = _models().get(request.match_info["episode"])
        if episode is None:
            return web.json_response({"error": {"message": "this episode is over"}}, status=404)
        return web.json_response(await episode.complete(await request.json()))

    async def serve() -> str:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/{episode}/v1/chat/completions", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    return str(_run(serve()))


def _words(message: Mapping[str, Any]) -> str:
    """The text of a message; of a picture that there is one."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", f"({part.get('type')})")) for part in content)
    return str(content or "")


def _whole(text: str) -> str:
    """The text without halves of letters, which the package does not take."""
    return text.encode("utf-8", "replace").decode()


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]
