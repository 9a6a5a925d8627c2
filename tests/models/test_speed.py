"""How fast a local model is here: measured when it is asked for, kept, and shown from then on."""

import json
import os

import pytest

from agentevolve.local import catalog
from agentevolve.models import speed

NAME = "smollm2-135m"


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache of the test's own that has the model's files: what is measured in a test is of no use to the user."""
    model = catalog.resolve(NAME)
    there = [model.gguf, catalog.serving_gguf(model)]
    (tmp_path / "models").mkdir()
    for path in there:
        os.symlink(path, tmp_path / "models" / path.name)
    monkeypatch.setenv("AGENTEVOLVE_CACHE", str(tmp_path))
    return tmp_path / "models"


def test_a_model_is_measured_when_it_is_asked_for_and_listed_with_its_speed(own_cache):
    assert speed.known(NAME) is None
    found = speed.measure(NAME)
    assert found.read > found.written > 1 and found.memory > 50e6 and found.cores == os.cpu_count()
    assert speed.known(NAME) == found
    [kept] = own_cache.glob("*.speed.json")
    kept.write_text(json.dumps({"read": "fast"}))
    assert speed.known(NAME) is None
