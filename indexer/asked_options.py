"""What a file of answers was asked with, kept beside it: rows that were asked for in two ways do not mix unseen."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.durable import replace_file
from models.errors import InvalidConfig


def options_file(out: Path) -> Path:
    """Where the options of the answers in `out` are kept."""
    return out.with_name(f"{out.name}.options.json")


def check_options(out: Path, options: Mapping[str, Any], *, has_rows: bool) -> None:
    """Note `options` where `out` is begun; raises `InvalidConfig` where it has rows that others were asked for."""
    file = options_file(out)
    present = json.loads(json.dumps(options))
    if has_rows and file.exists():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
            differing = [name for name, value in present.items() if before.get(name) != value]
        except (ValueError, AttributeError):
            raise InvalidConfig(f"{file} cannot be read; remove it, or take another --out") from None
        if differing:
            changes = ", ".join(
                f"{name} was {_shown(before.get(name))}, is {_shown(present[name])}" for name in differing
            )
            raise InvalidConfig(
                f"{out} holds rows of a run with other options ({changes}). Repeat the command as it was, or take "
                "another --out"
            )
        return
    replace_file(file, (json.dumps(present, indent=1) + "\n").encode())


def _shown(value: Any) -> str:
    if isinstance(value, list):
        words = ", ".join(str(entry) for entry in value[:3])
        return f"[{words}, … {len(value)} in all]" if len(value) > 3 else f"[{words}]"
    return "not said" if value is None else str(value)
