"""One picture of the plan → one JPEG file. Runs in worker processes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.demo_flora.photo import render_photo
from indexer.demo_flora.plan import Picture
from indexer.demo_flora.plant import grow
from indexer.demo_flora.sheet import render_sheet
from indexer.demo_flora.traits import SpeciesTraits
from models.specimens import Organ, Role

_PLANT_STREAM, _PICTURE_STREAM = 2, 3


@dataclass(frozen=True, slots=True)
class DrawingTask:
    """A picture to draw; all that a worker process needs to know."""

    picture: Picture
    traits: SpeciesTraits
    folder: Path
    seed: int
    image_height: int


def draw_picture(task: DrawingTask) -> tuple[Organ, int]:
    """What the picture shows and the size of its file in bytes.

    Chance depends on the seed and the picture's place in the plan only, never on the worker.
    """
    picture = task.picture
    plant_rng = _generator(task.seed, _PLANT_STREAM, picture.species_position, picture.plant)
    picture_rng = _generator(task.seed, _PICTURE_STREAM, picture.number)
    pressed = picture.role is Role.SHEET
    plant = grow(task.traits, plant_rng, pressed=pressed)
    if pressed:
        image, organ = render_sheet(plant, task.image_height, picture_rng), Organ.HABIT
    else:
        image, organ = render_photo(plant, task.image_height, picture_rng)
    target = task.folder / picture.path
    target.parent.mkdir(parents=True, exist_ok=True)
    image.save(target, "JPEG", quality=int(picture_rng.integers(68, 93)))
    return organ, target.stat().st_size


def _generator(seed: int, *place: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=place))
