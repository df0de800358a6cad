"""Where everything lives: the one folder that a voucher installation owns."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Home:
    """Paths below a home folder; creating an object touches nothing on disk."""

    root: Path

    @property
    def catalogue_file(self) -> Path:
        """The SQLite database of species, sheets and field photos."""
        return self.root / "catalogue.sqlite"

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
