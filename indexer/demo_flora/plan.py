"""Which pictures a flora consists of, who is shown on them and which are kept for the test."""

from dataclasses import asdict, dataclass

import numpy as np

from indexer.demo_flora.spread import FloraSpecies
from models.errors import InvalidConfig
from models.specimens import Role, Split

DRAWING_VERSION = 2
"""Raised whenever the same parameters would give other pictures or another manifest."""


@dataclass(frozen=True, slots=True)
class FloraParameters:
    """What a flora is made from; two equal ones give the same files.

    Raises `InvalidConfig` for counts that make no flora.
    """

    seed: int = 7
    species: int = 30
    herbarium_only: int = 10
    sheets_per_species: int = 12
    photos_per_species: int = 24
    test_photos_per_species: int = 8
    image_height: int = 320
    drawing_version: int = DRAWING_VERSION

    def __post_init__(self) -> None:
        if not 1 <= self.species <= 1000:
            raise InvalidConfig(f"a demo flora has 1 to 1000 species, not {self.species}")
        if not 0 <= self.herbarium_only <= self.species:
            raise InvalidConfig(
                f"herbarium_only counts some of the {self.species} species: expected 0 to {self.species}, "
                f"found {self.herbarium_only}"
            )
        if self.sheets_per_species < 1:
            raise InvalidConfig(f"a species has at least one sheet, not {self.sheets_per_species}")
        if min(self.photos_per_species, self.test_photos_per_species, self.seed) < 0:
            raise InvalidConfig("seed, photos_per_species and test_photos_per_species cannot be negative")
        if not 64 <= self.image_height <= 4096:
            raise InvalidConfig(f"image_height is 64 to 4096 pixels, not {self.image_height}")

    def as_json(self) -> dict[str, int]:
        """The parameters by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Picture:
    """One image to draw. Pictures with the same `plant` show the same individual.

    `plant` is unique within its species; `number` within the flora.
    """

    species_position: int
    number: int
    path: str
    role: Role
    split: Split | None
    plant: int
    plant_key: str


def plan_pictures(flora: tuple[FloraSpecies, ...], parameters: FloraParameters) -> tuple[Picture, ...]:
    """Every picture of the flora, species by species; no individual is in two splits."""
    rng = np.random.default_rng(np.random.SeedSequence(parameters.seed, spawn_key=(1,)))
    pictures: list[Picture] = []
    for position, species in enumerate(flora):
        photos = parameters.photos_per_species if species.has_photos else 0
        plants = 0
        for role, split, count, most in (
            (Role.SHEET, None, parameters.sheets_per_species, 2),
            (Role.FIELD, None, photos, 3),
            (Role.FIELD, Split.TEST, parameters.test_photos_per_species, 2),
        ):
            drawn = 0
            while drawn < count:
                siblings = min(int(rng.integers(1, most + 1)), count - drawn)
                prefix = "DEMO" if role is Role.SHEET else "obs"
                key = f"{prefix}-{species.species_id}-{plants:03d}"
                for _ in range(siblings):
                    number = len(pictures)
                    path = f"{role.value}/{species.species_id}/{number:06d}.jpg"
                    pictures.append(Picture(position, number, path, role, split, plants, key))
                plants += 1
                drawn += siblings
    return tuple(pictures)
