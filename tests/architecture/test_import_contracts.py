"""The layers app → models ← indexer, as written down in pyproject.toml."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = ("app", "indexer", "models")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Result of import-linter over the packages in `folder`, which must hold a pyproject.toml."""
    command = (
        "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command(['--no-cache']))"
    )
    return subprocess.run(
        [sys.executable, "-c", command], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def test_all_contracts_hold():
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broken." in result.stdout


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("app", "import indexer"),
        ("indexer", "import app"),
        ("models", "import app"),
        ("models", "import indexer"),
        ("app", "import torch"),
        ("app", "from faiss import IndexFlatIP"),
        ("models", "import fastapi"),
        ("models", "import rich.progress"),
        ("indexer", "import fastapi"),
    ],
)
def test_contracts_catch_an_import_that_breaks_them(tmp_path, module, statement):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / module / "offender.py").write_text(statement + "\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{module}.offender" in result.stdout
