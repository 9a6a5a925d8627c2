"""LiteLLM itself, kept quiet, and its one call, waited for no longer than it may take."""

from __future__ import annotations

import functools
import gc
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context
from queue import Empty, SimpleQueue
from typing import Any

from agentevolve.run.budget import Budget

GRACE = 10.0  # seconds more for the first calls of a process: LiteLLM imports most of itself then
PATIENCE = 5.0  # seconds that a call under way is waited for after the run was asked to end
LOOK = 1.0  # seconds between two looks whether the run was asked to end
IDLE = 30.0  # seconds that a connection is kept; one that its server has closed meanwhile is not used again
_warm = threading.Event()


@functools.cache
def litellm() -> Any:
    """The package, told to print nothing and to reach for nothing but the backend."""
    for table in ("MODEL_COST_MAP", "ANTHROPIC_BETA_HEADERS"):  # else fetched from the network
        os.environ[f"LITELLM_LOCAL_{table}"] = "True"
    os.environ.setdefault("LITELLM_LOG", "ERROR")  # else it warns about models that it has no price for
    warnings.filterwarnings("ignore", module=r"pydantic\b|litellm\b")  # of its own making, at every start
    with _collecting_nothing():
        import litellm as package
    package.telemetry = False
    package.suppress_debug_info = True
    package.drop_params = True
    _keep_connections(package)
    return package


@contextmanager
def _collecting_nothing() -> Iterator[None]:
    """While all of LiteLLM is imported, which leaves hundreds of thousands of objects, no look is taken at which of them may go;
    nor later: every full collection would stop all threads for a quarter of a second."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def _keep_connections(package: Any) -> None:
    """Let every route keep as many connections open as there are calls side by side: of its own accord it keeps 20."""
    import httpx
    from litellm.llms.custom_httpx.http_handler import get_ssl_configuration

    class Kept(httpx.HTTPTransport):
        """All of LiteLLM's handlers share it, and each closes it at its end: that would cut off the calls of the others."""

        def close(self) -> None:
            pass

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=IDLE)
    ssl = get_ssl_configuration()
    package.client_session = httpx.Client(verify=ssl, limits=limits, follow_redirects=True)
    package.sync_transport = Kept(verify=ssl, limits=limits)


@functools.cache
def info(name: str) -> Mapping[str, Any]:
    """LiteLLM's entry of a model; empty when it has none."""
    try:
        return dict(litellm().get_model_info(name))
    except Exception:  # LiteLLM raises a bare Exception for a model that it has no entry for
        return {}


def missing_keys(name: str) -> list[str]:
    """The environment variables with keys that the model's provider wants and that are not set."""
    return [key for key in litellm().validate_environment(name)["missing_keys"] if key.endswith("_API_KEY")]


def completion(request: dict[str, Any], stream: bool) -> Any:
    """One call; LiteLLM's own retries are off: they repeat without a pause, and also what can never succeed."""
    with _untold(litellm()):
        if not stream:
            return litellm().completion(**request, max_retries=0, num_retries=0)
        parts = litellm().completion(**request, max_retries=0, num_retries=0, stream=True, stream_options={"include_usage": True})
        return litellm().stream_chunk_builder(list(parts), messages=request["messages"])


@contextmanager
def _untold(package: Any) -> Iterator[None]:
    """Where nobody has asked LiteLLM to tell of its calls, it need not make up what it would tell: a fifth of a call's time.

    The switch is LiteLLM's own, for the calls within its calls, and none that it promises: without it all goes on as ever.
    """
    try:
        from litellm._internal_context import is_internal_call
    except ImportError:
        yield
        return
    heard = package.callbacks or package.success_callback or package.max_budget
    before = is_internal_call.set(not heard)
    try:
        yield
    finally:
        is_internal_call.reset(before)


class _Line:
    """A thread that makes calls, one at a time: to start one for each call costs more than what else is ours of a step."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while call := self._calls.get():
            try:
                self._answers.put((Context().run(call), None))  # what a call sets in its context is not the next one's
            except BaseException as error:
                self._answers.put((None, error))
            del call  # else what it asked would be kept until the next one

    def begin(self, call: Callable[[], Any]) -> None:
        """Make this call; the one before it has been answered."""
        self._calls.put(call)

    def answer(self, seconds: float) -> tuple[Any, BaseException | None]:
        """What the call gave or raised. Raises queue.Empty if it does neither in so many seconds."""
        return self._answers.get(timeout=seconds)

    def leave(self) -> None:
        """Its thread ends with the call under way, whenever that may be."""
        self._calls.put(None)


_lines: list[_Line] = []  # those that make no call now: as many as there were calls side by side at most
os.register_at_fork(after_in_child=_lines.clear)  # a child has none of these threads


def within(seconds: float, call: Callable[[], Any], budget: Budget) -> Any:
    """What the call gives or raises, if it does within so many seconds; else TimeoutError: a server may send a byte a second.

    It is waited for from outside, so that an end of the run need not wait for it either.
    """
    try:
        line = _lines.pop()
    except IndexError:
        line = _Line()
    line.begin(call)
    try:
        answer, error = _waited(line, seconds, budget)
    except BaseException:
        line.leave()
        raise
    _lines.append(line)
    if not _warm.is_set():
        gc.freeze()  # what LiteLLM has imported for its first call, too
        _warm.set()
    if error is not None:
        raise error
    return answer


def _waited(line: _Line, seconds: float, budget: Budget) -> tuple[Any, BaseException | None]:
    until = time.monotonic() + seconds + (0.0 if _warm.is_set() else GRACE)
    end: float | None = None
    while True:
        try:
            return line.answer(min(LOOK, max(0.0, until - time.monotonic())))
        except Empty:
            now = time.monotonic()
        end = end or (now + PATIENCE if budget.stopped else None)
        if end and now > end:
            budget.alive()
        if now > until:
            raise TimeoutError(f"no whole answer within {seconds:g} s") from None
