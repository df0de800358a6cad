"""Where the catalogue's database is: a file of SQLite, or a PostgreSQL server. Nothing here tells a password."""

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from models.errors import InvalidConfig

_EXPECTED = (
    "postgresql://USER:PASSWORD@HOST:PORT/DATABASE with special characters of the password percent-encoded; "
    "leave it empty for the SQLite database in the home folder"
)
_POSTGRESQL = ("postgresql", "postgres", "postgresql+psycopg")
_SECRETS_IN_QUERY = ("password", "sslpassword")
_PLACE_IN_QUERY = ("host", "port", "service")


def sqlite_url(file: Path) -> URL:
    """URL of a SQLite database."""
    return URL.create("sqlite", database=str(file))


def postgresql_url(text: str) -> URL:
    """URL for SQLAlchemy and psycopg of an address with the scheme ``postgresql`` or ``postgres``.

    Raises `InvalidConfig`, whose message repeats nothing of the address: it may hold a password.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise InvalidConfig(f"the database URL cannot be read; expected {_EXPECTED}") from None
    if url.drivername not in _POSTGRESQL:
        raise InvalidConfig(f"the database URL is of the kind {url.get_backend_name()!r}; expected {_EXPECTED}")
    if not url.database and "service" not in url.query:
        raise InvalidConfig(f"the database URL names no database; expected {_EXPECTED}")
    if any(key in url.query for key in _SECRETS_IN_QUERY):
        raise InvalidConfig(
            f"the database URL has a password among its options, where it can leak; expected {_EXPECTED}"
        )
    return url.set(drivername="postgresql+psycopg")


def database_name(url: URL) -> str:
    """The database in words for messages and logs: a path, or server and database without the password."""
    if url.get_backend_name() == "sqlite":
        return url.database or "in memory"
    where = {key: value for key, value in url.query.items() if key in _PLACE_IN_QUERY}
    shown = URL.create("postgresql", url.username, None, url.host, url.port, url.database, where)
    return shown.render_as_string()
