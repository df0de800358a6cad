"""All photos below a folder to a file of answers: here, or by a service."""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.asked_options import check_options
from indexer.photo_arguments import MAX_PHOTOS
from indexer.progress import Report
from indexer.result_rows import ResultRows
from models.errors import InvalidDataset

if TYPE_CHECKING:
    from indexer.client import VoucherClient
    from indexer.identify_many import Asked
    from models.identifier import Identifier

logger = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
STAGE = "identifying"

_ABOUT_THE_PHOTO = frozenset({"unreadable-image", "image-too-large", "unsupported-upload", "request-too-large"})


@dataclass(frozen=True, slots=True)
class PlantFiles:
    """The photos of one plant and the name of its row, which is a path below the folder."""

    name: str
    photos: tuple[Path, ...]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run over a folder ended: rows in the file, those with an error, and those that were there before."""

    rows: int
    failed: int
    earlier: int

    def to_json(self) -> dict[str, int]:
        """Plain values."""
        return {"rows": self.rows, "failed": self.failed, "earlier": self.earlier}


Answered = tuple[PlantFiles, dict[str, Any] | None, str | None]
Answerer = Callable[[Iterable[PlantFiles]], Iterator[Answered]]
"""Takes plants, gives each with its answer or its error, in their order."""


def find_plants(folder: Path, *, folders_are_plants: bool = False) -> list[PlantFiles]:
    """Each photo below `folder` a plant, or those of each folder together; by name, hidden files left out.

    Links to folders are not followed. Raises `InvalidDataset` when there is no photo.
    """
    plants: list[PlantFiles] = []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        photos = [
            Path(where) / name for name in sorted(files) if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
        if folders_are_plants and photos:
            name = Path(where).relative_to(folder).as_posix()
            error = None
            if len(photos) > MAX_PHOTOS:
                error = f"expected at most {MAX_PHOTOS} photos of one plant, found {len(photos)}"
            plants.append(PlantFiles(name, tuple(photos), error))
        elif not folders_are_plants:
            plants += [PlantFiles(photo.relative_to(folder).as_posix(), (photo,)) for photo in photos]
    if not plants:
        raise InvalidDataset(f"there is no photo below {folder}; expected files ending in {', '.join(SUFFIXES)}")
    return plants


def identify_folder(
    plants: Sequence[PlantFiles], out: Path, answer: Answerer, options: Mapping[str, Any], *, report: Report
) -> Summary:
    """Answers of all plants that have no row in `out` yet, each written as soon as it is known.

    Raises `InvalidConfig` when `out` has rows that were asked for with other `options`.
    """
    with ResultRows(out) as rows:
        check_options(out, options, has_rows=bool(rows.done))
        left = [plant for plant in plants if not rows.has(plant.name)]
        earlier, before = len(plants) - len(left), set(rows.bundle_ids)
        done = earlier
        report(STAGE, done, len(plants))
        for plant, values, error in answer(left) if left else ():
            rows.write(plant.name, values, error)
            done += 1
            report(STAGE, done, len(plants))
        if before and rows.bundle_ids - before:
            logger.warning("%s holds answers of several bundles: %s", out, ", ".join(sorted(rows.bundle_ids)))
        return Summary(len(rows.done), rows.failed, earlier)


def local_answers(
    identifier: "Identifier", asked: "Asked", *, batch_size: int, decoders: int | None = None
) -> Answerer:
    """Answers of the network in this process."""
    from indexer.identify_many import Plant, identify_many
    from models.answer_values import answer_values

    def answers(plants: Iterable[PlantFiles]) -> Iterator[Answered]:
        wanted = (Plant(plant.name, plant.photos, plant.error) for plant in plants)
        for group in identify_many(identifier, wanted, asked, batch_size=batch_size, decoders=decoders):
            for named in group:
                values = None if named.answer is None else answer_values(named.answer, identifier.model_id)
                yield PlantFiles(named.plant.name, named.plant.photos), values, named.error

    return answers


def remote_answers(client: "VoucherClient", asked: dict[str, Any], *, parallel: int) -> Answerer:
    """Answers of a service, which gets `parallel` requests at one time; `asked` are arguments of its `identify`."""

    def ask(plant: PlantFiles) -> tuple[dict[str, Any] | None, str | None]:
        from indexer.client import InvalidRequest
        from models.errors import InvalidImage

        if plant.error is not None:
            return None, plant.error
        try:
            return client.identify(plant.photos, **asked).model_dump(mode="json"), None
        except InvalidImage as error:
            return None, str(error)
        except InvalidRequest as error:
            if error.kind in _ABOUT_THE_PHOTO:
                return None, error.detail
            raise

    def answers(plants: Iterable[PlantFiles]) -> Iterator[Answered]:
        waiting: deque[tuple[PlantFiles, Future[tuple[dict[str, Any] | None, str | None]]]] = deque()
        with ThreadPoolExecutor(parallel, thread_name_prefix="ask") as pool:
            try:
                for plant in plants:
                    waiting.append((plant, pool.submit(ask, plant)))
                    if len(waiting) > 2 * parallel:
                        first, future = waiting.popleft()
                        yield first, *future.result()
                while waiting:
                    first, future = waiting.popleft()
                    yield first, *future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    return answers
