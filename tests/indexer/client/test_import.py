"""A program that only asks a service does not load what the service needs."""

import subprocess
import sys

HEAVY = ("torch", "numpy", "PIL", "faiss", "sqlalchemy", "dbos", "fastapi", "scipy", "typer", "rich")


def test_the_client_loads_nothing_heavy() -> None:
    code = f"import sys, indexer.client; sys.exit(','.join(m for m in {HEAVY!r} if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
