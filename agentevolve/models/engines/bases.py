"""Bases in memory: a GGUF is read once for all the policies of this process that act with it, one after the other or at once.

llama.cpp loads adapters only when its server starts. So one that a server lacks costs a new start, with those that were used
last; from then on going from one to another, or to the base, costs nothing: at scale 0 an adapter is not computed (measured by
`tests/bench/arms.py`). Adapters are known by the hash of their content. A server is never stopped under a policy that acts with
it: another one that needs what it lacks has a server of its own.
"""

from __future__ import annotations

import atexit
import threading
from pathlib import Path
from weakref import WeakSet

from agentevolve.local import catalog
from agentevolve.local.adapter import sha256
from agentevolve.models.engines import llama_cpp, prove
from agentevolve.models.engines.llama_cpp import Engine, Server
from agentevolve.protocols import AgentevolveError

KEPT = 4  # adapters that a server is started with


class Hold:
    """An open model's claim to a base, and to its adapter (a GGUF LoRA file): until it is closed, a base that was read stays."""

    def __init__(self, base: _Base, adapter: Path | None) -> None:
        self._base, self.adapter = base, adapter
        base.holds.add(self)

    def start(self) -> Engine:
        """The engine, proven, to be closed before the claim; started if the base is not there, or not with this adapter.

        A claim that was closed is made again. Raises AgentevolveError when llama.cpp cannot load a file, or answers with other
        weights than the adapter's.
        """
        return self._base.engine(self)

    def close(self) -> None:
        """Give up the claim: with the last one the base leaves the memory. Closing twice is allowed."""
        self._base.give_up(self)


class _Base:
    """A GGUF, those who hold it, and the servers that have it in memory: one, unless one in use lacks an adapter."""

    def __init__(self, model: catalog.LocalModel, slots: int, threads: int | None) -> None:
        self.holds: WeakSet[Hold] = WeakSet()
        self._model, self._slots, self._threads = model, slots, threads
        self._lock = threading.Lock()
        self._users: dict[Server, int] = {}  # engines of each
        self._proven: set[tuple[Server, str]] = set()
        self._recent: dict[str, Path] = {}  # adapters by the hash of their content, that used last comes last

    def engine(self, hold: Hold) -> Engine:
        with self._lock:
            self.holds.add(hold)
            if hold.adapter and not hold.adapter.is_file():
                raise AgentevolveError(f"{hold.adapter}: no such file")
            name = sha256(hold.adapter) if hold.adapter else None
            server = next((one for one in self._users if name is None or name in one.adapters), None)
            if server is None:
                self._stop([one for one, users in self._users.items() if not users])
                server = self._started(name, hold)
                self._users[server] = 0
            engine = Engine(server, name, lambda: self._released(server))
            if name and hold.adapter:
                if (server, name) not in self._proven:
                    prove(engine, hold.adapter)
                    self._proven.add((server, name))
                self._recent.pop(name, None)
                self._recent[name] = hold.adapter
            self._users[server] += 1
            return engine

    def give_up(self, hold: Hold) -> None:
        with self._lock:
            self.holds.discard(hold)
            self._tidy()

    def stop(self) -> None:
        with self._lock:
            self._stop(list(self._users))

    def _released(self, server: Server) -> None:
        with self._lock:
            if server in self._users:
                self._users[server] -= 1
                self._tidy()

    def _tidy(self) -> None:
        """Stop the servers that nobody acts with; one is kept for who holds the base."""
        unused = [one for one, users in self._users.items() if not users]
        kept = 1 if self.holds and len(unused) == len(self._users) else 0
        self._stop(unused[: len(unused) - kept])

    def _stop(self, servers: list[Server]) -> None:
        for server in servers:
            server.close()
            del self._users[server]
            self._proven = {(one, name) for one, name in self._proven if one is not server}

    def _started(self, name: str | None, hold: Hold) -> Server:
        """A server with the adapter of this name, and with others that may be asked for next, as far as they can be loaded."""
        gguf = catalog.serving_gguf(self._model)
        own = {name: hold.adapter} if name and hold.adapter else {}
        others = self._wanted()
        others.pop(name or "", None)
        kept = dict(list(others.items())[: KEPT - len(own)])
        if kept:
            try:
                return llama_cpp.start(gguf, own | kept, slots=self._slots, threads=self._threads)
            except AgentevolveError:  # one of the others does not fit, or is gone: this one is told of its own trouble alone
                self._recent.clear()
        return llama_cpp.start(gguf, own, slots=self._slots, threads=self._threads)

    def _wanted(self) -> dict[str, Path]:
        """The adapters of the open models, then those used last, by the hash that their files have now."""
        used = list(reversed(self._recent.values()))[:KEPT]
        paths = [*(one.adapter for one in self.holds if one.adapter), *used]
        return {sha256(path): path for path in paths if path.is_file()}


_BASES: dict[tuple[str, int, int | None], _Base] = {}
_LOCK = threading.Lock()


def hold(model: catalog.LocalModel, adapter: Path | None, slots: int, threads: int | None) -> Hold:
    """A claim to the base `model`, which has a GGUF, for who acts with `adapter`; nothing is read before its `start`."""
    with _LOCK:
        base = _BASES.setdefault((model.identity, slots, threads), _Base(model, slots, threads))
    return Hold(base, adapter)


@atexit.register
def _stop() -> None:
    """At the end of the process: a server that is torn down with it while it answers takes the process along."""
    for base in _BASES.values():
        base.stop()
