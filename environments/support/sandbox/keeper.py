"""The keeper: a process that holds tests and asks another one, which runs the code to be tested, for every single answer.

It is started by `judge.py` as a bare interpreter (no site-packages), before anything is known about the task. First it forks
the *candidate*, which raises its walls and waits; only then does it read the tests from its standard input. So the tests, what
they expect and the verdict are never in the memory of the candidate: the two share two pipes, on which a call goes there as its
arguments and comes back as a value. A value is read as data (numbers, text, lists, tuples, sets, mappings and the like), so
nothing that the candidate says is executed here, and no object of its own making takes part in a comparison.

The verdict goes to standard output as JSON, a line before the code is looked at and one after it: {"walls": […]},
{"passed": false, "why": "in f([1]): ZeroDivisionError: …"}; or {"broken": why} when the walls cannot be had. An answer that is
endless to work with, in the tests or in reading it, ends the keeper by the system's own limit of processor time. Only the
standard library and two files beside this one are used.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import random
import re
import select
import signal
import sys
import textwrap
import time
import types
from collections.abc import Callable
from typing import Any, NoReturn

from agentevolve.environments.support.sandbox.plain import line, packed, shown, unpacked
from agentevolve.environments.support.sandbox.walls import Limits, die_with_parent, hide_memory, raise_walls

MOST = 4 << 20  # bytes of one answer


class Failed(BaseException):
    """The candidate gave no answer; says why. No test can catch it."""


class Broken(Exception):
    """There is no candidate: its walls could not be had."""


def main() -> None:
    """Judge one candidate: the limits are an argument, the tests come as JSON on standard input."""
    order = json.loads(sys.argv[1])
    die_with_parent()
    if os.getppid() != order["parent"]:
        os._exit(1)  # it ended before we tied ourselves to it
    try:
        candidate = Candidate(order)
    except Broken as error:
        json.dump({"broken": str(error)}, sys.stdout)
        return
    hide_memory()
    try:
        job = json.load(sys.stdin)
        print(json.dumps({"walls": candidate.walls}), flush=True)
        _limit(*order["own"])
        print(json.dumps(judge(candidate, job)), flush=True)
    finally:
        candidate.stop()


def _limit(seconds: int, memory: int) -> None:
    """Have the system end this process after so much more processor time, also in the middle of one comparison."""
    import resource

    most = seconds + math.ceil(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (most, most + 1))  # at the first one comes the signal that our starter knows
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def judge(candidate: Candidate, job: dict[str, str]) -> dict[str, Any]:
    """Run the tests. `job`: what was asked (`prompt`), the `code` to judge, the function's `name`, a `solution`, the `tests`."""
    random.seed(0)  # tests that draw their arguments draw the same ones each time
    space: dict[str, Any] = {"__name__": "tests"}
    try:
        candidate.load(job["prompt"], job["code"], job["name"])
        # what the prompt defines beside the function in question is ours, not the candidate's
        exec(job["prompt"] + job["solution"], space)
        space[job["name"]] = candidate
        exec(job["tests"], space)
        space["check"](candidate)
    except Failed as failure:
        return {"passed": False, "why": str(failure)}
    except AssertionError:
        return {"passed": False, "why": f"a test failed after {candidate.last}"}
    except Exception as error:  # the tests could not work with what they were given: None < 1, for example
        return {"passed": False, "why": f"a test failed after {candidate.last}: {type(error).__name__}"}
    return {"passed": True, "why": ""}


class Candidate:
    """The process that runs the code; called like the function in question. Raises Failed when there is no answer."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.until = time.monotonic() + order["wall"]
        self.last = self._name = ""
        theirs, self._requests = os.pipe()
        self._answers, theirs_too = os.pipe()
        self._heard = b""
        keeper, self._ended = os.getpid(), False
        self._process = os.fork()
        if not self._process:
            _live(theirs, theirs_too, keeper, order)
        os.close(theirs)
        os.close(theirs_too)
        try:
            word, self.walls = self._receive()  # the code to be tested is not there yet, so this can be believed
            if word != "walls":
                raise Broken(self.walls)
        except BaseException:
            self.stop()
            raise

    def load(self, prompt: str, code: str, name: str) -> None:
        """Have it execute the code."""
        self._name = name
        self._ask([prompt, code, name], "when it was loaded")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The candidate's answer to one call."""
        self.last = f"{self._name}({shown(args)})"
        value = self._ask([list(args), kwargs], f"in {self.last}")
        self.last += f", which returned {shown([value])}"
        return value

    def stop(self) -> None:
        """End the process."""
        if not self._ended:
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
            self._ended = True

    def _ask(self, request: list[Any], what: str) -> Any:
        try:
            _send(self._requests, packed(request))
            answer = self._receive()
            if not isinstance(answer, list):
                raise ValueError("no pair")
            kind, value = answer
            if kind == "value":
                return unpacked(value)
            why = line(str(value))
        except Failed as failure:
            why = str(failure)
        except OSError:
            why = self._end()
        except (ValueError, TypeError, LookupError, RecursionError, MemoryError):
            why = "it returned what cannot be read"
        raise Failed(f"{what}: {why}")

    def _receive(self) -> Any:
        """The next message: a line of JSON. Nothing about it is taken for granted."""
        while b"\n" not in self._heard:
            if len(self._heard) > MOST:
                raise Failed("it returned too much")
            if not select.select([self._answers], [], [], max(0.0, self.until - time.monotonic()))[0]:
                raise Failed("it took too long")
            if not (part := os.read(self._answers, 1 << 16)):
                raise Failed(self._end())
            self._heard += part
        message, _, self._heard = self._heard.partition(b"\n")
        return json.loads(message)

    def _end(self) -> str:
        """How the process ended that says nothing any more."""
        for _ in range(100):
            ended, status = os.waitpid(self._process, os.WNOHANG)
            if ended:
                self._ended = True
                number = os.waitstatus_to_exitcode(status)
                return {-signal.SIGKILL: "it took too long"}.get(number, f"it ended by itself ({number})")
            time.sleep(0.005)
        return "it answers no more"


def _live(requests: int, answers: int, keeper: int, order: dict[str, Any]) -> NoReturn:
    """The life of the candidate process. It sees nothing of the keeper's but the two pipes."""
    try:
        die_with_parent()  # and once more behind the walls, since a change of user undoes it
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        for number in set(range(3, 64)) - {requests, answers}:
            with contextlib.suppress(OSError):
                os.close(number)
        heard = open(requests, "rb")  # noqa: SIM115 - for as long as the process lives
        try:
            _send(answers, ["walls", raise_walls(Limits(*order["limits"]), *order["files"])])
        except Exception as error:
            _send(answers, ["broken", f"{type(error).__name__}: {error}"])
            os._exit(1)
        if os.getppid() != keeper:
            os._exit(1)
        os.environ.clear()
        random.seed(0)
        loaded = _tried(functools.partial(load, *unpacked(json.loads(heard.readline()))))
        _send(answers, loaded if loaded[0] == "raised" else ["value", None])
        for request in heard:
            args, kwargs = unpacked(json.loads(request))
            _send(answers, _tried(lambda: packed(loaded[1](*args, **kwargs))))  # noqa: B023 - called at once
    finally:
        os._exit(1)


def _tried(function: Callable[[], Any]) -> list[Any]:
    """What a call returned, or what it raised."""
    try:
        return ["value", function()]
    except BaseException as error:
        try:
            return ["raised", f"{type(error).__name__}: {error}"[:300]]
        except BaseException:
            return ["raised", type(error).__name__]


def load(prompt: str, code: str, name: str) -> Callable[..., Any]:
    """The function that the code makes of the prompt. Raises whatever is wrong with it.

    The code is the whole function, which then stands after the prompt and counts instead of it, or its body, which goes on where
    the prompt ends; the first line of a body, or all of them, may have lost their indentation.
    """
    body = code.strip("\n")
    tries = [f"{prompt}\n{body}", f"{prompt}\n    {body.lstrip()}", f"{prompt}\n{textwrap.indent(body, '    ')}"]
    if re.search(rf"^(async )?def {name}\b", code, re.MULTILINE):
        tries = [f"{prompt}\n{code}", code]  # the latter for "from __future__", which must come first
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    exec(_first_that_compiles(tries), module.__dict__)
    function: Callable[..., Any] = getattr(module, name)
    return function


def _first_that_compiles(tries: list[str]) -> types.CodeType:
    problems = []
    for text in tries:
        try:
            return compile(text, "<solution>", "exec", dont_inherit=True)
        except SyntaxError as error:
            problems.append(error)
    raise problems[0]


def _send(pipe: int, message: Any) -> None:
    text = json.dumps(message).encode() + b"\n"
    while text:
        text = text[os.write(pipe, text) :]
