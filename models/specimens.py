"""What a herbarium keeps and what a botanist photographs (Darwin Core terms)."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from models.taxonomy import SpeciesId


class Role(StrEnum):
    """Which of the two worlds an image comes from (Darwin Core ``basisOfRecord``)."""

    SHEET = "sheet"
    """PRESERVED_SPECIMEN"""
    FIELD = "field"
    """HUMAN_OBSERVATION"""


class Split(StrEnum):
    """What an image may be used for."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Organ(StrEnum):
    """Part of the plant that a photo shows (Pl@ntNet's terms)."""

    LEAF = "leaf"
    FLOWER = "flower"
    FRUIT = "fruit"
    BARK = "bark"
    HABIT = "habit"
    OTHER = "other"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Image:
    """One stored image.

    `source_sha256` is of the file as it was found and tells duplicates apart; `stored_sha256` is of
    the file in the image store, which holds no EXIF, GPS, XMP or comments, and is its address.
    `width` and `height` are pixels after turning upright.
    """

    source_sha256: str
    stored_sha256: str
    suffix: str
    width: int
    height: int
    bytes: int

    def __post_init__(self) -> None:
        for digest in (self.source_sha256, self.stored_sha256):
            if len(digest) != 64:
                raise ValueError(f"not a SHA-256 in hexadecimal: {digest!r}")
        if min(self.width, self.height, self.bytes) < 1:
            raise ValueError("an image has at least one pixel and one byte")

    @property
    def image_id(self) -> str:
        """First 20 hexadecimal digits of `source_sha256` (80 bits)."""
        return self.source_sha256[:20]


@dataclass(frozen=True, slots=True)
class Specimen:
    """The pressed plant, by the codes that a herbarium cites it with."""

    institution_code: str | None = None
    collection_code: str | None = None
    catalog_number: str | None = None


@dataclass(frozen=True, slots=True)
class Sheet:
    """One image of a `Specimen`. `specimen_key` is shared by all images of one pressed plant.

    The moments are in UTC; `added_at` is unknown for sheets of old catalogues.
    """

    sheet_id: str
    species_id: SpeciesId
    image: Image
    specimen_key: str
    specimen: Specimen = Specimen()
    split: Split | None = None
    license: str | None = None
    rights_holder: str | None = None
    source_path: str | None = None
    added_at: datetime | None = field(default=None, compare=False)
    removed_at: datetime | None = None
    purged_at: datetime | None = None

    @property
    def purged(self) -> bool:
        """Whether its image was deleted for good, some time after it was removed."""
        return self.purged_at is not None

    @property
    def removed(self) -> bool:
        """Whether a curator has taken it out of the collection."""
        return self.removed_at is not None


@dataclass(frozen=True, slots=True)
class FieldPhoto:
    """One photograph of a living plant. `observation_key` is shared by all photos of one plant."""

    photo_id: str
    species_id: SpeciesId
    image: Image
    observation_key: str
    organ: Organ | None = None
    split: Split | None = None
    license: str | None = None
    rights_holder: str | None = None
    source_path: str | None = None


@dataclass(frozen=True, slots=True)
class SyntheticPhoto:
    """What a translator drew after a sheet, in the manner of a field photo; nothing but training may use it.

    It is no `FieldPhoto`, so that no split, evaluation or page can take it for one. `species_id` is that of the sheet.
    """

    run_id: str
    sheet_id: str
    species_id: SpeciesId
    image: Image

    @property
    def photo_id(self) -> str:
        """Unlike the id of any imported image; another one for each sheet and each content."""
        return f"synthetic-{self.sheet_id}-{self.image.image_id}"


@dataclass(frozen=True, slots=True)
class Observation:
    """One living plant and all photos of it, at least one, all of one species."""

    observation_key: str
    photos: tuple[FieldPhoto, ...]

    def __post_init__(self) -> None:
        if not self.photos:
            raise ValueError("an observation has at least one photo")
        if len({p.species_id for p in self.photos}) != 1:
            raise ValueError(f"observation {self.observation_key} mixes species")

    @property
    def species_id(self) -> SpeciesId:
        """Species of the plant."""
        return self.photos[0].species_id
