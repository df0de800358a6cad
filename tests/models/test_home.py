"""The home and the address of its database: which are understood, and that none tells its password."""

from pathlib import Path

import pytest
from postgres import PASSWORD, PostgresServer

from models.catalogue import Catalogue
from models.database_url import database_name
from models.errors import CatalogueError, InvalidConfig
from models.home import Home

SECRET = "s3cr3t"


def test_without_an_address_the_catalogue_is_a_file_of_the_home() -> None:
    for nothing in (None, ""):
        home = Home(Path("some") / "place?", nothing)
        assert home.catalogue_url.get_backend_name() == "sqlite"
        assert home.catalogue_url.database == str(home.catalogue_file)
        assert database_name(home.catalogue_url) == "some/place?/catalogue.sqlite"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_is_reached_through_psycopg_and_named_without_the_password(scheme: str) -> None:
    home = Home(Path("h"), f"{scheme}://ada:{SECRET}%40x@db.example:5433/flora?sslmode=require")
    url = home.catalogue_url
    assert (url.drivername, url.username, url.password) == ("postgresql+psycopg", "ada", f"{SECRET}@x")
    assert (url.host, url.port, url.database, url.query) == ("db.example", 5433, "flora", {"sslmode": "require"})
    assert database_name(url) == "postgresql://ada@db.example:5433/flora"
    assert SECRET not in repr(home) + repr(url) + str(url)


def test_a_socket_is_part_of_the_name() -> None:
    url = Home(Path("h"), "postgresql:///flora?host=/run/postgresql&sslmode=disable").catalogue_url
    assert database_name(url) == "postgresql:///flora?host=%2Frun%2Fpostgresql"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        (f"mysql://ada:{SECRET}@host/flora", "of the kind 'mysql'"),
        ("sqlite:///elsewhere.sqlite", "of the kind 'sqlite'"),
        (f"postgresql+asyncpg://ada:{SECRET}@host/flora", "of the kind 'postgresql'"),
        (f"postgresql://ada:{SECRET}@host", "names no database"),
        (f"postgresql://ada@host/flora?password={SECRET}", "password among its options"),
        (f"postgresql://ada:a:b@host:{SECRET}/flora", "cannot be read"),
        (SECRET, "cannot be read"),
    ],
)
def test_other_addresses_are_refused_without_repeating_them(url: str, found: str) -> None:
    with pytest.raises(InvalidConfig, match=found) as refused:
        Home(Path("h"), url)
    assert "expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE" in str(refused.value)
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None


def test_errors_of_the_server_name_the_database_but_not_the_password(
    postgres_server: PostgresServer, tmp_path: Path, postgres_url: str
) -> None:
    wrong = Home(tmp_path, postgres_server.url("postgres", password=f"{SECRET} {PASSWORD}"))
    lost = Home(tmp_path, postgres_server.url("no_such_database"))
    away = Home(tmp_path, f"postgresql://ada:{SECRET}@127.0.0.1:1/flora")
    for home, found in ((wrong, "password authentication"), (lost, "does not exist"), (away, "(?i)refused")):
        for call in (Catalogue.open, Catalogue.exists):
            with pytest.raises(CatalogueError, match=found) as refused:
                call(home)
            assert "check that the server runs" in str(refused.value)
            assert SECRET not in str(refused.value)
            assert PASSWORD not in str(refused.value)
