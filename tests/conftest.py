"""Parts that several tests need and that take a while to come by."""

import os
import tempfile
from pathlib import Path

import pytest

from agentevolve.local import catalog

pytest.register_assert_rewrite("faulty")  # its checks tell what they compared

KEY = tempfile.TemporaryDirectory(prefix="agentevolve-key-")  # memories are signed with a key of the tests' own
os.environ["AGENTEVOLVE_KEY_FILE"] = str(Path(KEY.name) / "memory.key")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The GGUF that `local/smollm2-135m` is served from, fetched into the user's cache at the first use."""
    return catalog.serving_gguf(catalog.resolve("smollm2-135m"))
