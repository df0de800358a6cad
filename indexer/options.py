"""Options that many commands share."""

from pathlib import Path
from typing import Annotated

import typer

HomeOption = Annotated[Path, typer.Option("--home", envvar="VOUCHER_HOME", help="Folder that everything lives in.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda:N.")]
ByOption = Annotated[
    str | None,
    typer.Option("--by", help="Who does this, for the record. [default: the login name]", show_default=False),
]
DEFAULT_HOME = Path("voucher-home")


def who(given: str | None) -> str:
    """The name that a change is noted under: the given one, or that of the login."""
    import getpass

    if given and given.strip():
        return given.strip()
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user in this container
        return "command line"
