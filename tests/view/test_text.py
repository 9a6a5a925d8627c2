"""Texts are shown whole, with what nobody sees in them named; what differs between two of them is all that differs."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentevolve.protocols import AgentevolveError
from agentevolve.view.templates import foreign, link, page
from agentevolve.view.text import DIFFED, differences, visible, words

texts = st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\u202e\u2066\x1b\x00\ud800\ufeff\u200d\ufe0f<&\"'\n\t ab")))


@given(texts)
def test_nothing_unseen_is_left(text):
    said = visible(text)
    assert not [
        sign for sign in said if sign not in "\n\t" and unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
    ]
    assert visible(said) == said
    said.encode("utf-8")


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_is_as_it_was(text):
    assert visible(text) == text


@given(texts)
def test_foreign_text_is_text(text):
    said = str(foreign(text))
    inner = said.removeprefix("<bdi>").removesuffix("</bdi>")
    assert said == f"<bdi>{inner}</bdi>" and "<" not in inner and '"' not in inner


@given(texts, texts)
def test_differences_make_both_texts(before, after):
    parts = differences(before, after)
    assert "".join(text for what, text in parts if what != "new") == before
    assert "".join(text for what, text in parts if what != "gone") == after


def test_long_texts_are_compared_by_lines():
    lines = [f"line {number} of many\n" for number in range(DIFFED // 10)]
    parts = differences("".join(lines), "".join([*lines[:5], "another\n", *lines[6:]]))
    assert [part for part in parts if part[0] != "same"] == [("gone", lines[5]), ("new", "another\n")]


@given(texts)
def test_a_search_asks_for_words_alone(text):
    try:
        asked = words(text)
    except AgentevolveError:
        return
    assert all(part.isalnum() for part in asked.replace('"', "").split())


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_link_stays_on_the_house_s_own_pages(name):
    assert link(name, "attempt", id=name, turn=None).startswith("/runs/") and "//" not in link(name, "attempt", id=name)


def test_a_template_cannot_forget_to_escape():
    said = page("error", {"error": "<b>\u202e"}, nonce='"><script>', address="", twin="/", live="", here="")
    assert "<b>" not in said and "\u202e" not in said and '"><script>' not in said


def test_a_search_for_nothing_is_refused():
    with pytest.raises(AgentevolveError, match="name a word"):
        words("?! _")
