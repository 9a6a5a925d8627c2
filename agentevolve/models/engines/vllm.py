"""A vLLM server: one that the user runs, or a child of this process on loopback. The base stays loaded, adapters come and go.

vLLM keeps answers of an adapter's name in its caches, so a name is the hash of the adapter's weights and never means others; an
adapter is loaded before a phase and unloaded after it. vLLM has also answered requests in flight with another adapter once one
was added (its issue 47724): so while an adapter is loaded or unloaded, no request of this process is in flight. A server loads
adapters at run time only if it was started for it:

    VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve BASE --enable-lora --max-lora-rank 64
"""

from __future__ import annotations

import atexit
import functools
import os
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from agentevolve import wheels
from agentevolve.local import catalog
from agentevolve.local.adapter import read_adapter
from agentevolve.local.files import parameters
from agentevolve.local.room import of_gpu, share_for
from agentevolve.protocols import AgentevolveError

PATIENCE = 60.0  # seconds for one of the server's own routes
START = 900.0  # seconds until a child answers: it loads, compiles and warms up
SLOTS = 64  # requests that a server takes side by side
HOW = "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve BASE --enable-lora --max-lora-rank 64"
KEY = "HOSTED_VLLM_API_KEY"  # where LiteLLM looks for the key of a server of one's own


class Engine:
    """A server at `url` (which ends in /v1), its base called `base`, perhaps with an adapter called `adapter` loaded by us."""

    slots = SLOTS

    def __init__(self, url: str, key: str, base: str, adapter: str | None = None) -> None:
        self.url, self._key, self.base, self.adapter = url, key, base, adapter
        self._loaded = adapter is not None

    @property
    def route(self) -> dict[str, Any]:
        """By the name of the adapter, where there is one."""
        return {"model": f"hosted_vllm/{self.adapter or self.base}", "api_base": self.url, "api_key": self._key}

    def held(self, choices: Sequence[str], form: dict[str, Any] | None, slot: int) -> tuple[str, dict[str, Any]]:
        """By vLLM's structured outputs, or by a JSON schema."""
        if choices:
            return "structured_outputs", {"extra_body": {"structured_outputs": {"choice": list(choices)}}}
        return ("response_format", {"response_format": form}) if form else ("free text", {})

    def call(self) -> AbstractContextManager[None]:
        """Waits while an adapter is loaded or unloaded."""
        return _door(self.url).call()

    def count(self, text: str) -> int:
        """The tokens of `text`, as the model reads it within a conversation."""
        return _counted(self.url, self._key, self.base, text)

    def chances(self, prompt: Sequence[int], tokens: Sequence[int], scale: float) -> Mapping[int, float]:
        """Of exactly `tokens`: each is sent as the next token of the prompt, and its log-probability asked for."""
        asked = {
            "model": self.adapter if scale and self.adapter else self.base,
            "prompt": [[*prompt, token] for token in tokens],
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
        }
        with self.call():
            told = _asked(self.url, self._key, "POST", "/completions", asked)["choices"]
        last = [one["prompt_logprobs"][-1] for one in sorted(told, key=lambda one: one["index"])]
        return {token: float(found[str(token)]["logprob"]) for token, found in zip(tokens, last, strict=True)}

    def close(self) -> None:
        """Unload the adapter; the server stays, with its base."""
        if self._loaded:
            self._loaded = False
            try:
                with _door(self.url).change():
                    _asked(self.url, self._key, "POST", "/unload_lora_adapter", {"lora_name": self.adapter})
            except AgentevolveError:  # it was evicted, or the server is gone: nothing to give back
                return


def attach(url: str, base: catalog.LocalModel, adapter: Path | None) -> Engine:
    """The user's server at `url`, whose only base is `base`, with the adapter in the folder `adapter` loaded.

    Raises AgentevolveError when it is not reached, serves another base, or does not load adapters.
    """
    return _opened(url.rstrip("/"), os.environ.get(KEY, "none"), base, adapter)


def child(base: catalog.LocalModel, adapter: Path | None) -> Engine:
    """A server of our own on loopback, started once a base. Raises AgentevolveError when vLLM is missing or does not start."""
    assert base.folder
    url, key = _child(base.folder)
    return _opened(url, key, base, adapter)


def check_loads(url: str) -> None:
    """Raise AgentevolveError unless the server at `url` loads adapters while it runs: it is asked for one without a name."""
    url = url.rstrip("/")
    try:
        _asked(url, os.environ.get(KEY, "none"), "POST", "/load_lora_adapter", {"lora_name": "", "lora_path": ""})
    except Refused as refused:
        if refused.status in (404, 405):
            raise AgentevolveError(f"{url}: this vLLM server loads no adapters while it runs; start it with: {HOW}") from None
        if refused.status not in (400, 422):
            raise


def stop() -> None:
    """End the children, so that their GPU's memory is free."""
    for running in list(_CHILDREN.values()):
        running.terminate()
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
    _CHILDREN.clear()
    _child.cache_clear()


class Refused(AgentevolveError):
    """What a server has answered instead, with the HTTP status; 0 when it was not reached."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class _Door:
    """Of a server: any number of calls at a time, or one change of what is loaded. What changes keeps new calls waiting."""

    def __init__(self) -> None:
        self._moved = threading.Condition()
        self._calls, self._changes, self._changing = 0, 0, False

    @contextmanager
    def call(self) -> Iterator[None]:
        """A request is in flight meanwhile."""
        with self._moved:
            self._moved.wait_for(lambda: not self._changes)
            self._calls += 1
        try:
            yield
        finally:
            with self._moved:
                self._calls -= 1
                self._moved.notify_all()

    @contextmanager
    def change(self) -> Iterator[None]:
        """None is in flight meanwhile."""
        with self._moved:
            self._changes += 1
            self._moved.wait_for(lambda: not self._calls and not self._changing)
            self._changing = True
        try:
            yield
        finally:
            with self._moved:
                self._changes, self._changing = self._changes - 1, False
                self._moved.notify_all()


@functools.cache
def _door(url: str) -> _Door:
    return _Door()


_CHILDREN: dict[Path, subprocess.Popen[bytes]] = {}


def _opened(url: str, key: str, base: catalog.LocalModel, adapter: Path | None) -> Engine:
    name = _base_name(url, key, base)
    if adapter is None:
        return Engine(url, key, name)
    info = read_adapter(adapter)
    called = f"agentevolve-{info.identity[:32]}"
    if called not in _models(url, key):
        try:
            asked = {"lora_name": called, "lora_path": str(adapter.resolve())}
            with _door(url).change():
                _asked(url, key, "POST", "/load_lora_adapter", asked)
        except Refused as refused:
            how = f"; a server that loads adapters is started with: {HOW}" if refused.status in (400, 404, 405) else ""
            raise AgentevolveError(f"{adapter}: {refused}{how}") from None
    return Engine(url, key, name, called)


def _base_name(url: str, key: str, base: catalog.LocalModel) -> str:
    """What the server calls its base, which is to be `base`: by its name or its folder, or because there is no other."""
    found = {str(one["id"]): one for one in _models(url, key).values() if not one.get("parent")}
    wanted = {base.name, str(base.folder)}
    for name, one in found.items():
        if wanted & {name, str(one.get("root"))}:
            return name
    raise AgentevolveError(f"{url}: serves {', '.join(found) or 'no model'}, not {base.name}")


def _models(url: str, key: str) -> dict[str, dict[str, Any]]:
    return {str(one["id"]): one for one in _asked(url, key, "GET", "/models", None)["data"]}


@functools.lru_cache(maxsize=10_000)  # the same demos are weighed for each task
def _counted(url: str, key: str, base: str, text: str) -> int:
    asked = {"model": base, "prompt": text, "add_special_tokens": False}
    return int(_asked(url.removesuffix("/v1"), key, "POST", "/tokenize", asked)["count"])


def _asked(url: str, key: str, how: str, route: str, body: dict[str, Any] | None) -> Any:
    """What a route of the server answers: JSON, or {} for a plain text. Raises Refused."""
    import httpx

    headers = {"Authorization": f"Bearer {key}"}
    try:
        answer = httpx.request(how, url + route, json=body, headers=headers, timeout=PATIENCE, trust_env=False)
    except httpx.HTTPError as error:
        raise Refused(f"{url}: the vLLM server cannot be reached ({type(error).__name__})") from None
    if answer.status_code != 200:
        said = " ".join(answer.text.split())[:200]
        raise Refused(f"{url}{route}: the vLLM server answers {answer.status_code}: {said}", answer.status_code)
    try:
        return answer.json()
    except ValueError:
        return {}


@functools.cache
def _child(folder: Path) -> tuple[str, str]:
    """The address and the key of a server for the base in `folder`, which answers."""
    program = shutil.which("vllm")
    if program is None:
        raise AgentevolveError(
            "vLLM is not installed (pip install vllm, on a machine with a GPU); or name a server: --api-base URL"
        )
    key, port = secrets.token_urlsafe(32), _free_port()
    log = wheels.cache("logs") / f"vllm-{port}.log"
    words = [program, "serve", str(folder), "--host", "127.0.0.1", "--port", str(port), "--served-model-name", str(folder)]
    words += ["--enable-lora", "--max-loras", "2", "--max-lora-rank", "64"]
    if share := share_for(folder.name, 2 * parameters(folder), of_gpu()):  # in 16 bits
        words += ["--gpu-memory-utilization", f"{share:.2f}"]
    # the key lies in the environment: a command line can be read by everybody on the machine
    env = os.environ | {"VLLM_API_KEY": key, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("wb") as told:
        running = subprocess.Popen(words, env=env, stdout=told, stderr=subprocess.STDOUT)
    _CHILDREN[folder] = running
    atexit.register(stop)
    url = f"http://127.0.0.1:{port}/v1"
    _wait(running, url, key, log)
    return url, key


def _wait(running: subprocess.Popen[bytes], url: str, key: str, log: Path) -> None:
    until = time.monotonic() + START
    while time.monotonic() < until:
        if running.poll() is not None:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            said = next((line for line in reversed(lines) if line.strip()), "nothing")
            raise AgentevolveError(f"vLLM ended with code {running.returncode}: {said.strip()[:200]} ({log} has more)")
        try:
            _models(url, key)
            return
        except Refused:
            time.sleep(0.5)
    stop()
    raise AgentevolveError(f"vLLM did not answer within {START:.0f} s ({log} has what it said)")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
