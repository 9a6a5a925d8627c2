"""Schemas with nothing referred to from outside, whatever refers to what."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentevolve.environments.support.schemas import inlined


class Place(BaseModel):
    room: str


class Walk(BaseModel):
    to: Place
    by: list[Place] = []


def test_what_is_referred_to_stands_in_its_place():
    found = inlined(Walk.model_json_schema())
    assert found["properties"]["to"]["properties"] == {"room": {"title": "Room", "type": "string"}}
    assert found["properties"]["by"]["items"]["required"] == ["room"] and "$" not in json.dumps(found)


def test_what_refers_to_itself_or_to_nothing_ends():
    chain = {"$defs": {"A": {"properties": {"next": {"$ref": "#/$defs/A"}}}}, "properties": {"a": {"$ref": "#/$defs/A"}}}
    assert "$ref" not in json.dumps(inlined(chain))
    doubling = {f"A{n}": {"anyOf": [{"$ref": f"A{n + 1}"}] * 2} for n in range(40)}
    with pytest.raises(ValueError, match="a schema of more than 20,000 parts"):
        inlined({"a": {"$ref": "A0"}, "$defs": doubling})
    assert inlined({"properties": {"a": {"$ref": "#/$defs/B", "title": "A"}}}) == {"properties": {"a": {"title": "A"}}}


parts = st.recursive(
    st.none() | st.text(max_size=3) | st.sampled_from([{"$ref": "#/$defs/A"}, {"$ref": 5}, {"$ref": "B"}]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "$defs"]), inner, max_size=2),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["properties", "a"]), parts), st.none() | st.dictionaries(st.sampled_from("AB"), parts))
def test_whatever_a_stranger_calls_a_schema_is_taken(schema, defs):
    assert "$ref" not in json.dumps(inlined(schema | ({"$defs": defs} if defs is not None else {})))
