"""A call is waited for from outside, on a thread that is there for the next one too; and LiteLLM tells of it to whoever asked."""

import subprocess
import sys
import threading
from contextvars import ContextVar

import pytest
from faulty import Server

from agentevolve.models.backend import litellm, within
from agentevolve.models.lite import open_model
from agentevolve.records import Message
from agentevolve.run.budget import Budget

ASK = [Message(role="user", content="where?")]


def test_calls_one_after_the_other_are_made_on_one_thread():
    made = {within(5.0, threading.get_ident, Budget()) for _ in range(5)}
    assert len(made) == 1 and threading.get_ident() not in made


def test_what_a_call_raises_is_raised_and_the_next_one_is_answered():
    with pytest.raises(ZeroDivisionError):
        within(5.0, lambda: 1 / 0, Budget())
    assert within(5.0, lambda: 7, Budget()) == 7


def test_calls_side_by_side_have_a_thread_each_and_one_that_hangs_keeps_nobody():
    within(5.0, int, Budget())  # the first call of a process is given longer
    go = threading.Event()
    hangs = [lambda: go.wait(60) and threading.get_ident()]
    with pytest.raises(TimeoutError, match=r"0\.1 s"):
        within(0.1, hangs[0], Budget())
    before = threading.active_count()
    assert within(5.0, lambda: within(5.0, lambda: 7, Budget()), Budget()) == 7
    go.set()
    assert within(5.0, lambda: 8, Budget()) == 8  # and not what was answered too late
    assert threading.active_count() <= before + 2


def test_what_a_call_sets_in_its_context_is_not_the_next_one_s():
    told: ContextVar[str] = ContextVar("told", default="nothing")
    within(5.0, lambda: told.set("a secret"), Budget())
    assert within(5.0, told.get, Budget()) == "nothing"


def test_a_process_that_was_forked_makes_calls_of_its_own():
    code = """
import os
from agentevolve.models.backend import within
from agentevolve.run.budget import Budget
within(5.0, int, Budget())
child = os.fork()
if not child:
    os._exit(within(5.0, lambda: 7, Budget()))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "7\n", done.stderr


def test_who_asks_litellm_to_tell_of_its_calls_is_told():
    heard = threading.Event()
    package = litellm()
    with Server(lambda messages: "left") as backend:
        model = open_model("hosted_vllm/m", api_base=backend.url)
        model.complete(ASK)
        package.success_callback.append(lambda *_: heard.set())
        try:
            model.complete(ASK)
            assert heard.wait(10)
        finally:
            package.success_callback.clear()
