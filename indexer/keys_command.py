"""`voucher keys`: API keys, made, listed and revoked."""

import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from indexer import console
from indexer.options import DEFAULT_HOME, HomeOption, JsonOption
from models.api_keys import MAX_DAYS, MAX_PER_MINUTE, MAX_QUOTA, ApiKey, NewKey, Scope
from models.api_keys_store import KeyStore
from models.catalogue import Catalogue

keys_app = typer.Typer(no_args_is_help=True, help="API keys of the service: create, list, revoke.")

KeyId = Annotated[str, typer.Argument(help="As `voucher keys list` shows it; the part between the underscores.")]


@keys_app.callback()
def _group() -> None:
    """API keys of the service: create, list, revoke."""


@keys_app.command("create")
def create_command(
    name: Annotated[str, typer.Option(help="Whose key it is, or what for. Curators' changes are noted under it.")],
    home: HomeOption = DEFAULT_HOME,
    scope: Annotated[
        list[Scope] | None, typer.Option(help="identify, curate; may be given twice. [default: identify]")
    ] = None,
    daily_quota: Annotated[
        int | None, typer.Option(min=1, max=MAX_QUOTA, help="Identifications in a day (UTC). [default: no limit]")
    ] = None,
    per_minute: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_PER_MINUTE, help="Requests to identify in a minute. [default: no limit]"),
    ] = None,
    expires: Annotated[
        int | None, typer.Option(min=1, max=MAX_DAYS, help="Days until it opens nothing any more. [default: never]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key. It is shown once: only its hash is kept."""
    wanted = NewKey(name, frozenset(scope or [Scope.IDENTIFY]), daily_quota, per_minute, expires)
    where = console.home_of(home, may_be_new=True)
    if not Catalogue.exists(where):
        console.errors.print(f"{home} has no catalogue yet: an empty one is made", markup=False, soft_wrap=True)
    with KeyStore.open(where, create=True) as store:
        kept, text = store.create(wanted)
    if as_json:
        console.show_json({**key_to_json(kept), "key": text})
        return
    # The key alone on the output stream, so that a script can take it.
    console.errors.print(f"{_described(kept)}. Keep it now, it cannot be shown again:", markup=False, soft_wrap=True)
    sys.stdout.write(text + "\n")


@keys_app.command("list")
def list_command(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """All keys, with what they have used today."""
    with KeyStore.open(console.home_of(home)) as store:
        keys, used = store.all_keys(), store.used_on(datetime.now(UTC).date())
    if as_json:
        console.show_json([key_to_json(key, used.get(key.key_id, 0)) for key in keys])
        return
    rows = [
        (
            key.key_id,
            key.name,
            " ".join(sorted(key.scopes)),
            f"{used.get(key.key_id, 0):,}" + ("" if key.daily_quota is None else f" of {key.daily_quota:,}"),
            "" if key.per_minute is None else f"{key.per_minute:,}",
            key.created_at.date().isoformat(),
            "" if key.expires_at is None else key.expires_at.date().isoformat(),
            "never" if key.last_used_on is None else key.last_used_on.isoformat(),
            key.state().value,
        )
        for key in keys
    ]
    columns = ["key", "name", "scopes", "today", "a minute", "created", "expires", "last used", ""]
    console.show_table("API keys", columns, rows)


@keys_app.command("revoke")
def revoke_command(key_id: KeyId, home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Have a key open nothing any more, in all running services, within a second or two. It cannot be undone."""
    with KeyStore.open(console.home_of(home)) as store:
        key = store.revoke(key_id)
    if as_json:
        console.show_json(key_to_json(key))
    else:
        console.output.print(f"{key.key_id} ({key.name}) is revoked", markup=False, soft_wrap=True)


def key_to_json(key: ApiKey, used_today: int = 0) -> dict[str, Any]:
    """Plain values of what is kept of a key, less its hash."""
    return {
        "key_id": key.key_id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "daily_quota": key.daily_quota,
        "used_today": used_today,
        "per_minute": key.per_minute,
        "created_at": key.created_at.isoformat(),
        "expires_at": None if key.expires_at is None else key.expires_at.isoformat(),
        "last_used_on": None if key.last_used_on is None else key.last_used_on.isoformat(),
        "revoked_at": None if key.revoked_at is None else key.revoked_at.isoformat(),
        "state": key.state().value,
    }


def _described(key: ApiKey) -> str:
    limits = [
        None if key.daily_quota is None else f"{key.daily_quota:,} identifications a day",
        None if key.per_minute is None else f"{key.per_minute:,} requests a minute",
        None if key.expires_at is None else f"until {key.expires_at:%Y-%m-%d}",
    ]
    return ", ".join([f"Key {key.key_id} of {key.name} for: {' '.join(sorted(key.scopes))}", *filter(None, limits)])
