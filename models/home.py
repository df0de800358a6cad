"""Where everything lives: the one folder that a voucher installation owns."""

from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import URL

from models.database_url import postgresql_url, sqlite_url
from models.errors import InvalidConfig


@dataclass(frozen=True, slots=True)
class Home:
    """Paths below a home folder, and its database; creating an object touches nothing on disk.

    `database_url` is the address of a PostgreSQL database; without one the catalogue is a SQLite file in the home.
    Raises `InvalidConfig` for an address of another kind.
    """

    root: Path
    database_url: str | None = field(default=None, repr=False)
    """May hold a password: for opening the database only, never for a message or a log."""

    def __post_init__(self) -> None:
        if self.database_url:
            postgresql_url(self.database_url)

    def require(self) -> None:
        """Raises `InvalidConfig` where there is neither the folder nor a database: most often a mistyped address."""
        if not self.root.is_dir() and not self.database_url:
            what = "is not a folder" if self.root.exists() else "does not exist"
            raise InvalidConfig(
                f"the home {self.root} {what}: name the right one with --home or VOUCHER_HOME, or begin one with "
                "`voucher import`"
            )

    @property
    def catalogue_file(self) -> Path:
        """The SQLite database of species, sheets and field photos, unless `database_url` names another."""
        return self.root / "catalogue.sqlite"

    @property
    def catalogue_url(self) -> URL:
        """Address of the catalogue's database for SQLAlchemy; its text form hides the password."""
        return postgresql_url(self.database_url) if self.database_url else sqlite_url(self.catalogue_file)

    @property
    def backups(self) -> Path:
        """Copies of the catalogue's database from before each change of its schema."""
        return self.root / "backups"

    @property
    def images(self) -> Path:
        """Image store: ``images/ab/cd/<stored sha256><suffix>``."""
        return self.root / "images"

    @property
    def renditions(self) -> Path:
        """Thumbnails and browser copies; may be deleted at any time."""
        return self.root / "renditions"

    @property
    def models(self) -> Path:
        """Model artifacts, one folder each."""
        return self.root / "models"

    @property
    def indexes(self) -> Path:
        """Index artifacts, one folder each."""
        return self.root / "indexes"

    @property
    def active_pointer(self) -> Path:
        """Names the bundle that is served; replaced by an atomic rename."""
        return self.root / "active.json"

    @property
    def runs(self) -> Path:
        """Training runs: config, splits, checkpoints, history, reports."""
        return self.root / "runs"

    @property
    def embeddings(self) -> Path:
        """Embeddings of sheets by `space_id`, reused by later builds."""
        return self.root / "embeddings"

    @property
    def cache(self) -> Path:
        """Outputs of frozen trunks; may be deleted at any time."""
        return self.root / "cache"

    @property
    def explanations(self) -> Path:
        """Heat maps of answers, which expire; may be deleted at any time."""
        return self.cache / "explanations"

    @property
    def received(self) -> Path:
        """Photos that were sent for identification, where the operator has them kept."""
        return self.root / "received"

    @property
    def batches(self) -> Path:
        """Photos that wait to be identified in batches, and the results, which are kept for a time."""
        return self.root / "batches"

    @property
    def workers(self) -> Path:
        """Locks that tell which workers run."""
        return self.root / "workers"
