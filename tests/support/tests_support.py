"""What several test files need: the smallest run config, and datasets of a few pictures."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from indexer.import_dataset import import_dataset
from models.curation import NewSheet, NewSpecies
from models.home import Home
from models.taxonomy import SpeciesId

TINY_CONFIG: dict[str, Any] = {
    "seed": 5,
    "backbone": {
        "name": "vit_tiny_patch16_224",
        "pretrained": False,
        "image_size": 48,
        "last_blocks": 1,
        "arguments": {"embed_dim": 24, "depth": 2, "num_heads": 2, "patch_size": 8},
    },
    "generalist": {"kind": "tuned", "metric": "whitened"},
    "heads": {"projection_hidden": 16, "projection_dimensions": 24},
    "sampling": {"species_per_batch": 6, "images_per_role": 2},
    "augmentation": {"views": 1},
    "optimizer": {"epochs": 2, "steps_per_epoch": 3, "learning_rate": 1e-3},
    "calibration": {"folds": 2, "epochs": 1},
}
"""A two-block vision transformer from random weights: seconds to train, useless as a botanist."""


def noise_picture(seed: int, size: tuple[int, int] = (40, 60)) -> Image.Image:
    """A picture of random pixels, another one for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write_manifest(folder: Path, rows: list[tuple[str, str]]) -> Home:
    """A home below `folder` with one picture for each (species, role)."""
    dataset = folder / "dataset"
    dataset.mkdir()
    with (dataset / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "species_id", "role"])
        for number, (species, role) in enumerate(rows):
            noise_picture(number).save(dataset / f"{number}.png")
            writer.writerow([f"{number}.png", species, role])
    home = Home(folder / "home")
    import_dataset(dataset, home)
    return home


def picture_bytes(seed: int, pixels: int = 0) -> bytes:
    """The picture of `noise_picture` as a PNG file, at its usual size or with about so many pixels."""
    side = round(pixels**0.5)
    packed = io.BytesIO()
    (noise_picture(seed, (side, side)) if side else noise_picture(seed)).save(packed, "PNG")
    return packed.getvalue()


def encoded_picture(seed: int = 0, format: str = "JPEG", size: tuple[int, int] = (96, 128), **options: Any) -> bytes:
    """Noise from a seed, in a format by Pillow's name."""
    packed = io.BytesIO()
    noise_picture(seed, size).save(packed, format, **options)
    return packed.getvalue()


def sheet_of(seed: int, species: SpeciesId | NewSpecies) -> NewSheet:
    """A sheet to add, another one for each seed."""
    return NewSheet(picture_bytes(seed), species)
