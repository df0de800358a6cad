"""Draws a flora into a folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.demo_flora.plan import FloraParameters, Picture, plan_pictures
from indexer.demo_flora.render import DrawingTask
from indexer.demo_flora.spread import FloraSpecies, design_flora
from indexer.demo_flora.storage import (
    MANIFEST,
    complete_bytes,
    put_in_place,
    sole_writer,
    write_manifest,
    write_stamp,
)
from indexer.demo_flora.workers import Progress, cores, draw_all
from models.errors import InvalidConfig
from models.specimens import Role, Split


@dataclass(frozen=True, slots=True)
class FloraSummary:
    """What a drawn flora holds. `reused` tells that it was there already."""

    folder: Path
    manifest: Path
    species: int
    herbarium_only: int
    sheets: int
    training_photos: int
    test_photos: int
    bytes: int
    reused: bool

    @property
    def images(self) -> int:
        """Number of pictures."""
        return self.sheets + self.training_photos + self.test_photos


def draw_flora(
    destination: Path,
    *,
    seed: int = 7,
    species: int = 30,
    herbarium_only: int = 10,
    sheets_per_species: int = 12,
    photos_per_species: int = 24,
    test_photos_per_species: int = 8,
    image_height: int = 320,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> FloraSummary:
    """The flora drawn (or found complete) in `destination`: a manifest and its images.

    The same parameters give the same bytes with any number of `workers` (default: one a core).
    `on_progress` is called with the pictures done and the pictures in all. `destination` appears only
    when all of it is drawn. Raises `InvalidConfig` for impossible parameters and for a destination that
    holds something else than a demo flora.
    """
    parameters = FloraParameters(
        seed=seed,
        species=species,
        herbarium_only=herbarium_only,
        sheets_per_species=sheets_per_species,
        photos_per_species=photos_per_species,
        test_photos_per_species=test_photos_per_species,
        image_height=image_height,
    )
    if workers is not None and workers < 1:
        raise InvalidConfig(f"workers is at least 1, not {workers}")
    flora = design_flora(seed, species, herbarium_only)
    pictures = plan_pictures(flora, parameters)
    destination = destination.absolute()
    with sole_writer(destination) as partial:
        found = complete_bytes(destination, parameters, pictures)
        if found is not None:
            if on_progress is not None:
                on_progress(len(pictures), len(pictures))
            return _summary(destination, flora, pictures, found, reused=True)
        tasks = [
            DrawingTask(picture, flora[picture.species_position].traits, partial, seed, image_height)
            for picture in pictures
        ]
        drawn = draw_all(tasks, workers or cores(), on_progress)
        total = sum(size for _, size in drawn)
        write_manifest(partial, flora, pictures, [organ for organ, _ in drawn])
        write_stamp(partial, parameters, len(pictures), total)
        put_in_place(partial, destination)
    return _summary(destination, flora, pictures, total, reused=False)


def _summary(
    folder: Path, flora: tuple[FloraSpecies, ...], pictures: Sequence[Picture], total_bytes: int, *, reused: bool
) -> FloraSummary:
    photos = [picture for picture in pictures if picture.role is Role.FIELD]
    test = sum(picture.split is Split.TEST for picture in photos)
    return FloraSummary(
        folder=folder,
        manifest=folder / MANIFEST,
        species=len(flora),
        herbarium_only=sum(not one.has_photos for one in flora),
        sheets=len(pictures) - len(photos),
        training_photos=len(photos) - test,
        test_photos=test,
        bytes=total_bytes,
        reused=reused,
    )
