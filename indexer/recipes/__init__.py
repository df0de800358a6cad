"""Recipes: run configs that reproduce a way of training, by name. A small machine takes their ``[small]`` settings."""

import copy
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.run_config import RunConfig
from models.errors import InvalidConfig

__all__ = ["Recipe", "known_recipes", "load_recipe", "merge", "read_recipe"]

_FOLDER = Path(__file__).parent
_SMALL = "small"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Values = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """A recipe by its name, with the run config that it stands for."""

    name: str
    config: RunConfig


def known_recipes() -> list[str]:
    """Names of the recipes that come with voucher, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_recipe(name_or_path: str, small: bool = False, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """The run config of a recipe, with dotted `overrides` (``{"optimizer.epochs": 3}``) on top of the file.

    `name_or_path` is one of `known_recipes`, or a TOML file: a run config that may hold a table ``[small]`` of the
    same structure, which is merged over the rest when `small` is set and left out otherwise.
    Raises `InvalidConfig` naming the recipe, the key and what is allowed.
    """
    return read_recipe(name_or_path, small, overrides).config


def read_recipe(name_or_path: str, small: bool = False, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """As `load_recipe`, with the name: that of the file, less its suffix. Raises `InvalidConfig`."""
    path = _find(name_or_path)
    if not _NAME.fullmatch(path.stem):
        raise InvalidConfig(
            f"{path}: a recipe is named after its file, by up to 64 letters, digits, dots, dashes and underscores, "
            "and a letter or digit first; rename the file"
        )
    values = _parse(path)
    settings = values.pop(_SMALL, {})
    if not isinstance(settings, dict):
        raise InvalidConfig(f"{path}: [{_SMALL}] must be a section, not a value")
    if small:
        values = merge(values, settings)
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    try:
        return Recipe(path.stem, RunConfig.read(None, {**_by_dotted_key(values), **given}))
    except InvalidConfig as error:
        raise InvalidConfig(f"recipe {path.stem}: {error}") from error


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Values:
    """`below` with the values of `above` over it, table by table; neither is changed."""
    merged = copy.deepcopy(dict(below))
    for key, value in above.items():
        held = merged.get(key)
        if isinstance(held, dict) and isinstance(value, dict):
            merged[key] = merge(held, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _find(name_or_path: str) -> Path:
    if name_or_path in known_recipes():
        return _FOLDER / f"{name_or_path}.toml"
    path = Path(name_or_path)
    if path.suffix == ".toml" and path.is_file():
        return path
    raise InvalidConfig(
        f"there is no recipe {name_or_path!r}: take one of {', '.join(known_recipes())}, or the path of a .toml file"
    )


def _parse(path: Path) -> Values:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InvalidConfig(f"{path} is not a readable TOML file: {error}") from error


def _by_dotted_key(values: Mapping[str, Any]) -> Values:
    """``{"section.key": …}`` of the two levels that a run config has."""
    flat: Values = {}
    for section, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{section}.{key}": part for key, part in value.items()}
        else:
            flat[section] = value
    return flat
