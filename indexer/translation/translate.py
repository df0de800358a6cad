"""A run's synthetic photos: a translator is trained, and draws some sheets of every species anew."""

import io
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from indexer.progress import Report, of_stage, silent
from indexer.run_folder import TrainingRun
from indexer.training_set import IntArray, TrainingSet, read_training_set
from indexer.translation.contact import Pair, write_pairs
from indexer.translation.networks import Generator
from indexer.translation.pictures import UnpairedPictures, read_ahead, to_picture, whole_picture
from indexer.translation.train_translator import train_translator
from models.catalogue import Catalogue
from models.compute import Compute
from models.durable import replace_file
from models.errors import InsufficientData
from models.retrieval import FloatArray
from models.specimens import SyntheticPhoto
from models.taxonomy import SpeciesId

logger = logging.getLogger(__name__)

_CHUNK = 64
"""Drawings entered in one transaction: what a killed run draws again at most."""

_JPEG_QUALITY = 92
_PAIRS_SHOWN = 12
_CHOICE = 5


def translate_for_run(
    catalogue: Catalogue, run: TrainingRun, compute: Compute, *, report: Report = silent
) -> str | None:
    """The id under which `read_training_set` finds the run's synthetic photos; None when the run has no translation.

    The translator learns from the training split alone, from the sheets and real photos of all species together and
    without their names. Then it draws up to ``images_per_species`` sheets of every species. What a killed call has done
    is found and continued by the next; a finished one does nothing. ``translation.png`` in the run's folder shows some
    pairs.

    Rotating folds hide a species' photos from classifiers, not from the translator, which has met them as examples of
    what photos look like.

    Raises `InsufficientData` without sheets or photos to learn from, `InvalidConfig` and `InvalidImage`.
    """
    config = run.config.translation
    finished = run.folder / "translation.json"
    if config.epochs == 0:
        return None
    if finished.is_file():
        return run.run_id
    training_set = read_training_set(catalogue, run.splits)
    rows = np.flatnonzero(~training_set.is_validation)
    sheets, photos = rows[~training_set.is_field[rows]], rows[training_set.is_photo[rows]]
    generator = _trained(run, training_set, sheets, photos, compute, report)
    chosen = choose_sheets(
        sheets, training_set.classes, config.images_per_species, np.random.default_rng([run.config.seed, _CHOICE])
    )
    studio = _Studio(catalogue, run.run_id, generator, config.image_size, compute)
    studio.draw([_sheet_at(training_set, int(row)) for row in chosen], report)
    _show_pairs(catalogue, run, training_set)
    count = sum(1 for _ in catalogue.synthetic_photos(run.run_id))
    replace_file(finished, json.dumps({"photos": count}).encode())
    logger.info("%d synthetic photos were drawn; look at %s", count, run.folder / "translation.png")
    return run.run_id


def _trained(
    run: TrainingRun,
    training_set: TrainingSet,
    sheets: IntArray,
    photos: IntArray,
    compute: Compute,
    report: Report,
) -> Generator:
    """The run's generator, after or from its checkpoint."""
    if not len(sheets) or not len(photos):
        raise InsufficientData(
            "a translator learns from sheets and field photos; the training split has "
            f"{len(sheets)} and {len(photos)}. Import both, or set translation.epochs = 0"
        )
    config, paths = run.config.translation, training_set.paths
    pictures = UnpairedPictures(
        [paths[i] for i in sheets], [paths[i] for i in photos], config.image_size, config.batch, run.config.seed
    )
    return train_translator(
        pictures,
        config,
        run.config.seed,
        compute,
        checkpoint=run.checkpoint("translator"),
        on_progress=of_stage(report, "training the translator"),
    )


def choose_sheets(sheets: IntArray, classes: IntArray, most: int, generator: np.random.Generator) -> IntArray:
    """Up to `most` random ones of the rows `sheets` of each class, sorted; `classes` ``(N,)`` is by row."""
    shuffled = generator.permutation(sheets)
    ordered = shuffled[np.argsort(classes[shuffled], kind="stable")]
    _, first, counts = np.unique(classes[ordered], return_index=True, return_counts=True)
    position = np.arange(len(ordered)) - np.repeat(first, counts)
    return np.sort(ordered[position < most])


@dataclass(frozen=True, slots=True)
class _SheetToDraw:
    sheet_id: str
    species_id: SpeciesId
    path: Path


def _sheet_at(training_set: TrainingSet, row: int) -> _SheetToDraw:
    species = training_set.taxonomy.species[int(training_set.classes[row])]
    return _SheetToDraw(training_set.image_ids[row], species.species_id, training_set.paths[row])


class _Studio:
    """Draws sheets and enters the drawings in the catalogue."""

    def __init__(
        self, catalogue: Catalogue, run_id: str, generator: Generator, image_size: int, compute: Compute
    ) -> None:
        self._catalogue, self._run_id = catalogue, run_id
        self._generator, self._image_size, self._compute = generator, image_size, compute

    def draw(self, sheets: Sequence[_SheetToDraw], report: Report) -> None:
        """Draw those sheets that the run has not drawn yet."""
        present = {photo.sheet_id for photo in self._catalogue.synthetic_photos(self._run_id)}
        missing = [sheet for sheet in sheets if sheet.sheet_id not in present]
        done = len(sheets) - len(missing)
        report("drawing synthetic photos", done, len(sheets))
        workers = max(1, min(8, os.cpu_count() or 1))
        with ThreadPoolExecutor(workers, thread_name_prefix="drawing") as pool:
            pixels = read_ahead(pool, lambda s: whole_picture(s.path, self._image_size), missing, 2 * workers)
            with closing(pixels):
                for chunk in _in_chunks(missing):
                    drawings = [self._drawn(numbers) for numbers in islice(pixels, len(chunk))]
                    self._enter(chunk, list(pool.map(_packed, drawings)), pool)
                    done += len(chunk)
                    report("drawing synthetic photos", done, len(sheets))

    @torch.inference_mode()
    def _drawn(self, numbers: FloatArray) -> FloatArray:
        with self._compute.autocast():
            drawn = self._generator(torch.from_numpy(numbers).to(self._compute.device)[None])
        return drawn[0].float().cpu().numpy()

    def _enter(self, sheets: Sequence[_SheetToDraw], contents: Sequence[bytes], pool: ThreadPoolExecutor) -> None:
        store = self._catalogue.image_store
        images = list(pool.map(store.add, contents))
        photos = [
            SyntheticPhoto(self._run_id, s.sheet_id, s.species_id, i) for s, i in zip(sheets, images, strict=True)
        ]
        with self._catalogue.writing() as writer:
            writer.add_synthetic_photos(photos)
            for image, content in zip(images, contents, strict=True):
                if image not in store:  # an equal one of another run was removed meanwhile, file and all
                    store.add(content)


def _packed(drawn: FloatArray) -> bytes:
    packed = io.BytesIO()
    to_picture(drawn).save(packed, "JPEG", quality=_JPEG_QUALITY)
    return packed.getvalue()


def _in_chunks(sheets: Iterable[_SheetToDraw]) -> Iterator[list[_SheetToDraw]]:
    iterator = iter(sheets)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


def _show_pairs(catalogue: Catalogue, run: TrainingRun, training_set: TrainingSet) -> None:
    """Write ``translation.png``: one pair of each of some species, spread over the flora."""
    first_of = {photo.species_id: photo for photo in catalogue.synthetic_photos(run.run_id)}
    species = sorted(first_of)
    shown = {species[i] for i in np.linspace(0, len(species) - 1, min(_PAIRS_SHOWN, len(species))).round().astype(int)}
    path_of = dict(zip(training_set.image_ids, training_set.paths, strict=True))
    pairs = [
        Pair(
            path_of[first_of[one].sheet_id],
            catalogue.image_store.path(first_of[one].image),
            training_set.taxonomy.get(one).scientific_name,
        )
        for one in sorted(shown)
    ]
    write_pairs(run.folder / "translation.png", pairs)
