"""What the documentation tells people to type exists."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from indexer import cli
from indexer.run_config import RunConfig

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def blocks(language: str) -> list[tuple[str, str]]:
    """Page and text of every fenced block of a language."""
    found = []
    for page in PAGES:
        for text in re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            found.append((page.name, text))
    return found


def command_lines() -> list[tuple[str, str]]:
    """Page and line of every call of voucher."""
    lines = []
    for page, text in blocks("sh"):
        joined = text.replace("\\\n", " ")
        lines += [(page, line.strip()) for line in joined.splitlines() if re.match(r"\s*(\$run )?voucher ", line)]
    return lines


@pytest.fixture(scope="module")
def root_command() -> Any:
    return typer.main.get_command(cli.assemble())


def test_there_is_something_to_check() -> None:
    assert len(command_lines()) >= 8
    assert blocks("toml")


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_commands_and_their_options_exist(page: str, line: str, root_command: Any) -> None:
    words = shlex.split(line.removeprefix("$run "), comments=True)[1:]
    command: Any = root_command
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, f"{page}: no command {words[0]}"
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    used = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert used <= known, f"{page}: {line}: unknown {used - known}"


@pytest.mark.parametrize(("page", "text"), blocks("toml"))
def test_run_configs_are_valid(page: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    assert RunConfig.read(tmp_path / "run.toml").to_json(), page


def test_the_documented_defaults_are_the_defaults() -> None:
    text = max((text for page, text in blocks("toml") if page == "training.md"), key=len)
    documented = tomllib.loads(text)
    defaults = RunConfig().to_json()
    documented["backbone"].pop("image_size")  # the network's own, when nothing is said
    for section, values in documented.items():
        if isinstance(values, dict):
            for key, value in values.items():
                assert defaults[section][key] == value, f"[{section}] {key}"
        else:
            assert defaults[section] == values


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_make_targets_named_in_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:^|`)make ([a-z]+)", readme, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
