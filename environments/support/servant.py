"""A process of ours in which a package lives that needs one to itself: asked by JSON, killed when it hangs, gone with us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from agentevolve.protocols import AgentevolveError


class Servant:
    """The script `file` beside this one, started at the first request and again when it is lost; it answers one at a time.

    `patience`: seconds until it counts as hung.
    """

    def __init__(self, file: str, patience: float = 60.0) -> None:
        self.patience = patience
        self._file = Path(__file__).with_name(file)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, duty: str, **what: Any) -> Any:
        """The value of a request. Raises AgentevolveError when it is refused, TimeoutError, RuntimeError when it fails."""
        with self._lock:
            reply = self._asked(json.dumps({"duty": duty, **what}).encode())
        if "refused" in reply:
            raise AgentevolveError(reply["refused"])
        if "broken" in reply:
            raise RuntimeError(f"{self._file.stem}: {reply['broken']}")
        return reply["value"]

    def stop(self) -> None:
        """End the process; the next request starts another."""
        process, self._process = self._process, None
        if process and self._owner == os.getpid():
            self._requests.close()
            self._replies.close()
            process.kill()
            process.wait()

    def _asked(self, request: bytes) -> dict[str, Any]:
        # a fork of ours inherits the pipes, which are not its own
        if self._process is None or self._process.poll() is not None or self._owner != os.getpid():
            self._start()
        try:
            self._requests.send_bytes(request)
            if self._replies.poll(self.patience):
                return dict(json.loads(self._replies.recv_bytes()))
        except (EOFError, OSError) as error:
            self.stop()
            raise RuntimeError(f"{self._file.stem} ended: {type(error).__name__}") from None
        except BaseException:
            self.stop()  # whatever it answers now would be taken for the answer to the next request
            raise
        self.stop()
        raise TimeoutError(f"{self._file.stem} did not answer within {self.patience:g} s")

    def _start(self) -> None:
        self.stop()
        # no folder of the script on the path: an environment's file may have the name of its package
        process = subprocess.Popen(
            [sys.executable, "-P", str(self._file)], env={**os.environ, "PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert process.stdin and process.stdout
        self._requests = Connection(os.dup(process.stdin.fileno()), readable=False)
        self._replies = Connection(os.dup(process.stdout.fileno()), writable=False)
        process.stdin.close()
        process.stdout.close()
        self._process, self._owner = process, os.getpid()
