"""The rules of the house: one way of imports, nothing heavy or networked at import, everything public described."""

import ast
import os
import pkgutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
PACKAGE = HOUSE / "agentevolve"
MODULES = sorted(PACKAGE.rglob("*.py"))
WORLDS = sorted((HOUSE / "environments").rglob("*.py"))
HEAVY = ("torch", "transformers", "chromadb", "litellm", "langgraph", "sentence_transformers", "scipy", "matplotlib")
HEAVY += ("starlette", "textual", "uvicorn", "jinja2", "ray")

# the rooms in the order of their floors: a room imports from itself and from the floors above; rooms of one floor do not know
# each other
LAYERS = (
    ("records",),
    ("protocols", "redact"),
    ("given", "whole"),
    ("policy", "load", "wheels"),
    ("config", "run"),
    ("local",),
    ("models",),
    ("memory",),
    ("act",),
    ("acquire", "refine"),
    ("evaluate",),
    ("update",),
    ("methods",),
    ("loop", "survey", "doors"),
    ("view",),
    ("cli",),
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}

NO_NETWORK = """
import socket
def refuse(*args, **kwargs):
    raise SystemExit(f"reached for the network: {args}")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
"""


def room(path: Path) -> str:
    """The module or package right below agentevolve that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            package = node.module in ("agentevolve", "agentevolve.environments")
            names = (f"{node.module}.{alias.name}" for alias in node.names) if package else (node.module,)
            yield from (name for name in names if name)


def rooms_used(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(path) if name.startswith("agentevolve.")}


def test_every_module_has_its_layer():
    assert {room(path) for path in MODULES} - {"__init__"} == set(LAYER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    own = room(path)
    if own == "__init__":
        assert rooms_used(path) == set()
        return
    wrong = {name for name in rooms_used(path) - {own} if LAYER[name] >= LAYER[own]}
    assert not wrong, f"{own} may not import {wrong}"


@pytest.mark.parametrize("path", WORLDS, ids=lambda path: str(path.relative_to(HOUSE)))
def test_environments_know_records_and_protocols_alone(path):
    used = {name for name in imported(path) if name.startswith("agentevolve.")}
    beside = {name for name in used if name.startswith("agentevolve.environments")}
    # how an action says a call, and how a package is fetched alone: two leaves that know nothing of the agent either
    assert used - beside <= {f"agentevolve.{name}" for name in ("records", "protocols", "models.tools", "wheels")}
    shared = all(name.startswith("agentevolve.environments.support") for name in beside)
    assert shared, "an environment may share what is in support, not another environment"


def test_only_the_agent_and_the_doors_import_langgraph():
    users = {room(path) for path in MODULES if any(name.split(".")[0] == "langgraph" for name in imported(path))}
    assert users == {"act", "doors"}


@pytest.mark.parametrize("module", ["agentevolve", "agentevolve.cli.main", "agentevolve.config", "agentevolve.load"])
def test_nothing_heavy_is_loaded_at_import(module):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import {module}"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert module.split(".")[0] in loaded
    assert not loaded & set(HEAVY)


def undescribed(node: ast.AST, name: str) -> Iterator[str]:
    """The public functions, classes and methods without a docstring."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not inner.name.startswith("_"):
            if not ast.get_docstring(inner):
                yield f"{name}.{inner.name}"
            if isinstance(inner, ast.ClassDef):
                yield from undescribed(inner, f"{name}.{inner.name}")


def test_everything_public_is_described():
    trees = {path: ast.parse(path.read_text("utf-8")) for path in [*MODULES, *WORLDS]}
    missing = [path.name for path, tree in trees.items() if not ast.get_docstring(tree)]
    missing += [name for path, tree in trees.items() for name in undescribed(tree, path.stem)]
    assert missing == []


def test_every_package_is_installed():
    setup = tomllib.loads((HOUSE / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    inside = {".".join(path.parent.relative_to(HOUSE).parts) for path in PACKAGE.rglob("__init__.py")}
    top = {path.parent for path in HOUSE.glob("*/__init__.py") if path.parent != PACKAGE}
    assert {path.name for path in top} == {"environments", "tasks"}
    found = [path for folder in top for path in folder.rglob("__init__.py")]
    beside = {".".join(("agentevolve", *path.parent.relative_to(HOUSE).parts)) for path in found}
    assert inside | beside == set(setup["packages"])
    for folder in top:
        assert setup["package-dir"][f"agentevolve.{folder.name}"] == folder.name


def test_environments_and_tasks_are_importable_under_the_package_alone():
    import agentevolve.environments
    import agentevolve.tasks

    assert Path(agentevolve.environments.__file__).parent == HOUSE / "environments"
    assert sorted((HOUSE / "tasks").glob("*.yaml")) == sorted(Path(agentevolve.tasks.__file__).parent.glob("*.yaml"))
    code = "import environments"
    done = subprocess.run([sys.executable, "-c", code], cwd=os.sep, capture_output=True, text=True, timeout=60)
    assert "No module named 'environments'" in done.stderr


NAMES_A_PROMPT = {"render": 0, "abstracted": 1}  # functions that take a prompt's name, and where


def test_every_prompt_is_used_and_every_used_prompt_is_there():
    named = {
        node.args[NAMES_A_PROMPT[node.func.id]].value
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in NAMES_A_PROMPT
        if node.args and isinstance(node.args[NAMES_A_PROMPT[node.func.id]], ast.Constant)
    }
    assert named == {path.stem for path in (PACKAGE / "prompts").glob("*.jinja")}


def test_every_public_name_is_there():
    import agentevolve

    assert {name for name in agentevolve.__all__ if getattr(agentevolve, name) is None} == set()


def without_network(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    settings = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, timeout=240)


def test_nothing_reaches_for_the_network_at_import_or_help(tmp_path):
    import agentevolve

    probe = without_network(tmp_path, "import socket; socket.create_connection(('127.0.0.1', 9))")
    assert "reached for the network" in probe.stderr
    names = [one.name for one in pkgutil.walk_packages(agentevolve.__path__, "agentevolve.")]
    assert len(names) > 30
    done = without_network(tmp_path, "\n".join(f"import {name}" for name in names))
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("--help", "evolve --help", "memory --help"):
        done = without_network(
            tmp_path, f"import sys; sys.argv = 'agentevolve {words}'.split()\nimport agentevolve.cli.main as c; c.main()"
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "Usage: agentevolve" in done.stdout
