"""What takes long is made beside the page: nobody waits longer than the patience; what was there before is shown meanwhile."""

import threading

import pytest

from agentevolve.protocols import AgentevolveError
from agentevolve.view.soon import NotYet, Soon

WAIT = 30.0  # seconds that a machine with other work may need


class Slow:
    """Something that is made once it may be."""

    def __init__(self) -> None:
        self.may, self.made, self.begun = threading.Event(), 0, 0

    def __call__(self) -> int:
        self.begun += 1
        assert self.may.wait(WAIT)
        self.made += 1
        return self.made


def settled(soon, done):
    for _ in range(int(WAIT / 0.01)):
        if soon.done == done:
            return
        threading.Event().wait(0.01)
    raise AssertionError("it was never made")


def test_who_asks_does_not_wait_for_it():
    soon, slow = Soon(0.01), Slow()
    for _ in range(3):
        with pytest.raises(NotYet):
            soon.get("a", 1, slow)
    assert slow.begun == 1 and not soon.fresh("a", 1)  # one thread is at it
    slow.may.set()
    settled(soon, 1)
    assert soon.get("a", 1, slow) == 1 and soon.fresh("a", 1) and slow.made == 1


def test_what_was_there_before_is_shown_meanwhile():
    soon, slow = Soon(0.01), Slow()
    slow.may.set()
    soon.patience = None
    assert soon.get("a", 1, slow) == 1
    soon.patience = 0.01
    slow.may.clear()
    assert soon.get("a", 2, slow) == 1 and not soon.fresh("a", 2)
    slow.may.set()
    settled(soon, 2)
    assert soon.get("a", 2, slow) == 2


def test_who_has_no_end_of_patience_gets_the_state_that_was_asked_for():
    soon, slow = Soon(0.01), Slow()
    with pytest.raises(NotYet):
        soon.get("a", 1, slow)
    soon.patience = None
    threading.Timer(0.05, slow.may.set).start()
    assert soon.get("a", 2, slow) == 2 and slow.made == 2  # after the one that was under way


def test_an_error_is_told_until_something_changes():
    def fails():
        raise AgentevolveError("line 3 is damaged")

    soon = Soon()
    for _ in range(2):
        with pytest.raises(AgentevolveError, match="line 3"):
            soon.get("a", 1, fails)
    assert soon.done == 1 and soon.get("a", 2, lambda: "mended") == "mended"
    with pytest.raises(AgentevolveError, match="line 3"):
        soon.get("a", 3, fails)
    soon.patience, slow = 0.01, Slow()
    with pytest.raises(NotYet):  # what is wrong no more is not told any more
        soon.get("a", 4, slow)
    slow.may.set()


def test_one_thread_may_wait_longer_than_others():
    soon, slow = Soon(0.01), Slow()
    threading.Timer(0.1, slow.may.set).start()
    with soon.waiting():
        assert soon.get("a", 1, slow) == 1
    slow.may.clear()
    with pytest.raises(NotYet):
        soon.get("b", 1, slow)
    slow.may.set()


def test_what_went_wrong_by_chance_is_tried_again():
    tries = []

    def sometimes():
        tries.append(1)
        if len(tries) == 1:
            raise OSError("the disk was away")
        return "there"

    soon = Soon()
    with pytest.raises(OSError, match="away"):
        soon.get("a", 1, sometimes)
    assert soon.get("a", 1, sometimes) == "there"
