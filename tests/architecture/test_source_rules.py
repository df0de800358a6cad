"""Rules that neither ruff nor the type checker knows: safe loading, quiet code, no hidden inputs."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SOURCES = sorted(p for package in ("app", "indexer", "models") for p in (ROOT / package).rglob("*.py"))

EXECUTING_FORMATS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
"""Modules whose files run code when they are read."""

HARMLESS_NAMES = {"PickleError", "UnpicklingError"}
"""Errors that torch.load raises even with weights_only=True."""


def dotted(node: ast.AST) -> str:
    """``a.b.c`` of a name or attribute, otherwise an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def given(call: ast.Call, name: str) -> object:
    """Constant that the call gives for keyword `name`, or None."""
    return next((k.value.value for k in call.keywords if k.arg == name and isinstance(k.value, ast.Constant)), None)


def call_faults(call: ast.Call) -> Iterator[str]:
    """What is wrong with one call."""
    name = dotted(call.func)
    method = call.func.attr if isinstance(call.func, ast.Attribute) else name
    if name == "torch.load" and given(call, "weights_only") is not True:
        yield "torch.load without weights_only=True"
    if given(call, "allow_pickle") is True:
        yield "allow_pickle=True"
    if name in {"eval", "exec"}:
        yield name
    if name == "print":
        yield "print"
    if method == "cuda" and not call.args and not call.keywords:
        yield ".cuda()"
    if method == "load_state_dict" and given(call, "strict") is False:
        yield "load_state_dict with strict=False"


def faults(source: str, package: str) -> list[str]:
    """Breaches of the rules in a module of `package`, with their lines."""
    found = []
    for node in ast.walk(ast.parse(source)):
        uses: list[str] = []
        if isinstance(node, ast.Attribute):
            uses = [dotted(node)]
        elif isinstance(node, ast.Import):
            # A plain `import pickle` is judged by what is taken from it; another name would hide that.
            uses = [f"{alias.name} as {alias.asname}" for alias in node.names if alias.asname or "." in alias.name]
            uses += [alias.name for alias in node.names if alias.name in EXECUTING_FORMATS - {"pickle"}]
        elif isinstance(node, ast.ImportFrom):
            uses = [f"{node.module}.{alias.name}" for alias in node.names]
            if node.module == "torch" and any(alias.name == "load" for alias in node.names):
                found.append(f"{node.lineno}: torch.load under another name")
        found += [
            f"{node.lineno}: uses {use}"
            for use in uses
            if re.split(r"[. ]", use)[0] in EXECUTING_FORMATS and use.split(".")[-1] not in HARMLESS_NAMES
        ]
        if isinstance(node, ast.Call):
            found += [f"{node.lineno}: {fault}" for fault in call_faults(node)]
            if package == "models" and dotted(node.func) == "os.getenv":
                found.append(f"{node.lineno}: reads the environment")
        if package == "models" and isinstance(node, ast.Attribute) and dotted(node) == "os.environ":
            found.append(f"{node.lineno}: reads the environment")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_source_keeps_the_rules(path):
    package = path.relative_to(ROOT).parts[0]
    assert faults(path.read_text(encoding="utf-8"), package) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.loads(b'')",
        "import pickle as p",
        "import joblib",
        "import joblib.numpy_pickle",
        "from pickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "from torch import load",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "print('here')",
        "network.cuda()",
        "network.load_state_dict(state, strict=False)",
        "import os\nos.environ['HOME']",
        "import os\nos.getenv('HOME')",
    ],
)
def test_rules_catch_a_breach(source):
    assert len(faults(source, "models")) == 1


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path, map_location='cpu', weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "import pickle\ntry:\n    read()\nexcept pickle.UnpicklingError:\n    raise",
        "from pickle import UnpicklingError",
        "network.load_state_dict(state)",
        "torch.cuda.is_available()",
        "console.print('here')",
    ],
)
def test_rules_let_sound_code_pass(source):
    assert faults(source, "models") == []


def test_the_environment_is_the_entry_points_business():
    assert faults("import os\nos.environ['HOME']", "app") == []
