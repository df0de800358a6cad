"""Keys in either database: kept as hashes, found, revoked, and no part of what an index is made of."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime

import psycopg
import pytest
from sqlalchemy.exc import IntegrityError

from models.api_keys import KeyState, NewKey, Scope
from models.api_keys_store import KeyStore
from models.catalogue import Catalogue
from models.errors import CatalogueError, UnknownKey
from models.home import Home

BOTH = frozenset({Scope.IDENTIFY, Scope.CURATE})


@pytest.fixture
def store(empty_home: Home) -> Iterator[KeyStore]:
    with KeyStore.open(empty_home, create=True) as opened:
        yield opened


def everything(home: Home) -> str:
    """All rows of all tables, and for SQLite the bytes of its files."""
    if home.database_url is None:
        with closing(sqlite3.connect(home.catalogue_file)) as connection:
            dump = "\n".join(connection.iterdump())
        return dump + "".join(path.read_bytes().decode("latin1") for path in home.root.glob("catalogue.sqlite*"))
    with psycopg.connect(home.database_url) as server:
        query = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        tables = [row[0] for row in server.execute(query)]
        return "\n".join(str(server.execute(f'SELECT * FROM "{t}"'.encode()).fetchall()) for t in tables)


def test_a_key_comes_back_as_it_was_made(store: KeyStore) -> None:
    assert not store.exist()
    kept, _ = store.create(NewKey("Ada's phone", BOTH, 500, 60, 30))
    plain, _ = store.create(NewKey("Bob"))
    assert store.find(kept.key_id) == kept
    assert store.find(plain.key_id) == plain
    assert {key.key_id for key in store.all_keys()} == {kept.key_id, plain.key_id}
    assert store.find("000000000000") is None
    assert store.exist()


def test_only_the_hash_is_stored(store: KeyStore, empty_home: Home) -> None:
    kept, text = store.create(NewKey("Ada"))
    stored = everything(empty_home)
    assert kept.digest in stored
    assert text not in stored
    assert text.rsplit("_", 1)[1] not in stored


def test_keys_make_no_revision(store: KeyStore, empty_home: Home) -> None:
    kept, _ = store.create(NewKey("Ada"))
    store.note_use(kept.key_id, date(2026, 1, 1))
    store.revoke(kept.key_id)
    with Catalogue.open(empty_home) as catalogue:
        assert catalogue.revision().revision == 0
        assert catalogue.revisions() == []


def test_what_is_revoked_stays_so_and_still_counts_as_a_key(store: KeyStore) -> None:
    kept, _ = store.create(NewKey("Ada"))
    revoked = store.revoke(kept.key_id)
    assert revoked.state() is KeyState.REVOKED
    assert store.revoke(kept.key_id) == revoked
    assert store.find(kept.key_id) == revoked
    assert store.exist()
    with pytest.raises(UnknownKey, match="voucher keys list"):
        store.revoke("000000000000")


def test_the_last_use_is_a_day_and_never_goes_back(store: KeyStore) -> None:
    kept, _ = store.create(NewKey("Ada"))
    for day in (date(2026, 1, 2), date(2026, 1, 3), date(2026, 1, 1)):
        store.note_use(kept.key_id, day)
    found = store.find(kept.key_id)
    assert found is not None
    assert found.last_used_on == date(2026, 1, 3)


def test_a_service_sees_what_a_command_has_made(store: KeyStore, empty_home: Home) -> None:
    with KeyStore.open_for_serving(empty_home) as serving:
        assert not serving.exist()
        kept, _ = store.create(NewKey("Ada"))
        assert serving.find(kept.key_id) == kept
        serving.note_use(kept.key_id, datetime.now(UTC).date())
        assert store.find(kept.key_id) != kept


def test_errors_of_the_database_do_not_tell_what_was_written(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = NewKey("Ada")
    made = wanted.make()
    monkeypatch.setattr(NewKey, "make", lambda _: made)
    store.create(wanted)
    with pytest.raises(CatalogueError) as caught:
        store.create(wanted)
    assert isinstance(caught.value.__cause__, IntegrityError)
    assert made[0].digest not in f"{caught.value} {caught.value.__cause__}"


def test_without_a_catalogue_there_is_nothing_to_open(empty_home: Home) -> None:
    with pytest.raises(CatalogueError, match="voucher import"):
        KeyStore.open_for_serving(empty_home)
