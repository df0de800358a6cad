"""A throw-away PostgreSQL server for tests, from Debian's package; nothing of it is left when the tests end."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

PASSWORD = "s:e@c/r%et ü"
"""Of the server's user: with everything in it that must be encoded in a URL."""

USER = "voucher tests"

_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "autovacuum=off", "max_connections=60")
_START_SECONDS = 60
_FOLDERS = "voucher-pg-"
_ABANDONED_SECONDS = 3600.0


def server_programs() -> Path | None:
    """Folder with `initdb` and `postgres`, of the newest version that is installed; None when there is none."""
    found = [
        path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres") if path.with_name("initdb").exists()
    ]
    if found:
        return max(found, key=lambda folder: float(folder.parent.name))
    program = shutil.which("postgres")
    return None if program is None else Path(program).resolve().parent


class PostgresServer:
    """A server of its own, on a Unix socket in a folder of its own. It goes when the process that started it does."""

    def __init__(self, programs: Path) -> None:
        _remove_what_killed_tests_left()
        self.folder = Path(tempfile.mkdtemp(prefix=_FOLDERS))
        self._programs = programs
        self._user = _unprivileged_user()
        self._databases = 0
        try:
            if self._user is not None:
                os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
            self._initialise()
            self._process = self._start()
            self._wait()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def url(self, database: str = "postgres", password: str = PASSWORD) -> str:
        """Address of a database of this server, as people write it."""
        login = f"{quote(USER, safe='')}:{quote(password, safe='')}"
        return f"postgresql://{login}@/{database}?host={quote(str(self.folder), safe='')}"

    def create_database(self) -> str:
        """Name of a new, empty database."""
        self._databases += 1
        name = f"voucher_{os.getpid()}_{self._databases}"
        self._administer("CREATE DATABASE {}", name)
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, also when somebody has forgotten to close a connection to it."""
        self._administer("DROP DATABASE {} WITH (FORCE)", name)

    def stop(self) -> None:
        """End the server and remove its files."""
        self._process.terminate()
        self._process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _administer(self, statement: str, name: str) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(sql.Identifier(name)))  # type: ignore[arg-type]

    def _initialise(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD, encoding="utf-8")
        password.chmod(0o644)
        command = [
            str(self._programs / "initdb"),
            f"--pgdata={self.folder / 'data'}",
            f"--username={USER}",
            "--auth=scram-sha-256",
            f"--pwfile={password}",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]
        done = subprocess.run(self._as_user(command), capture_output=True, text=True, check=False, cwd="/")
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stderr}")

    def _start(self) -> subprocess.Popen[bytes]:
        command = [str(self._programs / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder)]
        command += ["-c", "listen_addresses="]
        for setting in _FAST:
            command += ["-c", setting]
        with (self.folder / "log").open("wb") as log:
            return subprocess.Popen(self._as_user(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self._process.kill()
                    log = (self.folder / "log").read_text(encoding="utf-8", errors="replace")
                    raise RuntimeError(f"PostgreSQL did not start: {log}") from None
                time.sleep(0.05)

    def _as_user(self, command: list[str]) -> list[str]:
        """The command as a user that PostgreSQL accepts (it refuses root), ended when this process ends."""
        program = shutil.which("setpriv")
        if program is None:
            if self._user is not None:
                raise RuntimeError("PostgreSQL does not run as root, and there is no setpriv to run it as another user")
            return command
        other = [] if self._user is None else [f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}"]
        return [program, *other, *(["--clear-groups"] if other else []), "--pdeathsig=INT", "--", *command]


def _remove_what_killed_tests_left() -> None:
    """Folders whose servers ended with the tests that had started them, an hour ago or longer."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDERS}*"):
        try:
            is_old = time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS
        except FileNotFoundError:  # other tests remove them too
            continue
        # A server removes this file when it ends, and ends when its tests do.
        if is_old and not (folder / "data" / "postmaster.pid").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Somebody else when we are root, otherwise None."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("PostgreSQL does not run as root, and there is no user postgres or nobody")
