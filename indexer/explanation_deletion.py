"""Whether heat maps tell what the network looks at: what is marked is greyed out, and the similarity must fall.

The deletion test of Petsiuk, Das & Saenko 2018, "RISE: Randomized Input Sampling for Explanation of Black-box Models",
for the similarity of a photo and a sheet.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from indexer.intervals import percentile_interval, resample_weights
from indexer.progress import Report, silent
from models.catalogue import Catalogue
from models.errors import InsufficientData
from models.explanation import Explanation, explain
from models.identifier import Identifier
from models.retrieval import FloatArray
from models.specimens import FieldPhoto, Role, Split

Order = Literal["hottest", "random", "coldest"]
Side = Literal["photo", "sheet"]

ORDERS: tuple[Order, ...] = ("hottest", "random", "coldest")
SIDES: tuple[Side, ...] = ("photo", "sheet")
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)

_RESAMPLES = 2000
_LOOKS = (("#D55E00", "o"), ("0.45", "s"), ("#0072B2", "^"))
"""Of `ORDERS`: colours of Okabe and Ito's palette, told apart with every common colour blindness, and marks."""


@dataclass(frozen=True)
class Fall:
    """How much the similarity of a pair falls when a share of one picture's places is greyed out.

    `mean` is over the pairs, with its 95 % interval (resampled pairs). `beats_random` is the share of pairs in which it
    falls more than with as many random places.
    """

    side: Side
    share: float
    order: Order
    mean: float
    interval: tuple[float, float]
    beats_random: float


@dataclass(frozen=True)
class DeletionResult:
    """Falls for each side, share and order, over `pairs` photos each with the first candidate's best sheet."""

    pairs: int
    similarity: float
    """Mean before anything is greyed out."""
    falls: tuple[Fall, ...]

    def fall(self, side: Side, share: float, order: Order) -> Fall:
        """The one asked for."""
        return next(f for f in self.falls if (f.side, f.share, f.order) == (side, share, order))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def deletion_test(
    identifier: Identifier,
    catalogue: Catalogue,
    *,
    pairs: int = 100,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    report: Report = silent,
) -> DeletionResult:
    """Falls over so many photos, those of the test split first.

    Places are greyed out in what the network gets: they take the mean colour of their picture. Raises
    `InsufficientData` without field photos.
    """
    generator = np.random.default_rng(seed)
    chosen = _photos(catalogue, generator, pairs)
    falls: list[FloatArray] = []
    before: list[float] = []
    for done, (photo, sheet) in enumerate(_pixels(identifier, catalogue, chosen)):
        report("greying out", done, len(chosen))
        (found,) = explain(identifier.encoder, identifier.bundle.gallery.metric, photo, [sheet])
        before.append(found.similarity)
        falls.append(falls_of_pair(identifier, photo, sheet, found, shares, generator))
    report("greying out", len(chosen), len(chosen))
    if not falls:
        raise InsufficientData("no field photo has a candidate with a sheet; import field photos and build an index")
    return DeletionResult(len(falls), float(np.mean(before)), tuple(_summary(np.array(falls), shares, seed)))


def falls_of_pair(
    identifier: Identifier,
    photo: FloatArray,
    sheet: FloatArray,
    found: Explanation,
    shares: Sequence[float],
    generator: np.random.Generator,
) -> FloatArray:
    """``(2, shares, 3)`` float32: how much the similarity falls, for photo and sheet, by share and by `ORDERS`."""
    metric = identifier.bundle.gallery.metric
    sides = ((photo, found.photo, Role.FIELD), (sheet, found.sheet, Role.SHEET))
    falls = np.empty((2, len(shares), len(ORDERS)), dtype=np.float32)
    whole = [metric.apply(identifier.encoder.embed(pixels[None]), role)[0] for pixels, _, role in sides]
    before = float(whole[0] @ whole[1])
    for side, (pixels, contributions, role) in enumerate(sides):
        coldest_first = np.argsort(contributions, axis=None, kind="stable")
        orders = (coldest_first[::-1], generator.permutation(contributions.size), coldest_first)
        greyed = np.stack(
            [
                greyed_out(pixels, order[: max(1, round(share * order.size))], contributions.shape)
                for share in shares
                for order in orders
            ]
        )
        after = metric.apply(identifier.encoder.embed(greyed), role) @ whole[1 - side]
        falls[side] = before - after.reshape(len(shares), len(ORDERS))
    return falls


def greyed_out(pixels: FloatArray, places: NDArray[np.intp], grid: tuple[int, ...]) -> FloatArray:
    """``(3, H, W)``: the picture with `places`, numbers into a grid of this shape, in its mean colour."""
    rows, columns = grid
    covered = np.zeros(rows * columns, dtype=bool)
    covered[places] = True
    height, width = pixels.shape[1:]
    down = np.arange(height) * rows // height
    across = np.arange(width) * columns // width
    mask = covered.reshape(rows, columns)[down[:, None], across]
    return np.where(mask, pixels.mean(axis=(1, 2), keepdims=True), pixels).astype(np.float32)


def _photos(catalogue: Catalogue, generator: np.random.Generator, count: int) -> list[FieldPhoto]:
    photos = list(catalogue.field_photos())
    shuffled = [photos[int(i)] for i in generator.permutation(len(photos))]
    return sorted(shuffled, key=lambda photo: photo.split is not Split.TEST)[:count]


def _pixels(
    identifier: Identifier, catalogue: Catalogue, photos: Sequence[FieldPhoto]
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Preprocessed pixels of photos, each with the best sheet of its first candidate."""
    preprocessing = identifier.encoder.preprocessing
    side = preprocessing.minimum_decode_side
    for photo in photos:
        pixels = preprocessing.apply(catalogue.image_store.open(photo.image, minimum_side=side))
        answer = identifier.identify_tensors(pixels[None], top_k=1, sheets_per_candidate=1)
        for match in answer.candidates[0].sheets:
            image = catalogue.get_sheet(match.sheet_id).image
            yield pixels, preprocessing.apply(catalogue.image_store.open(image, minimum_side=side))


def _summary(falls: NDArray[np.float32], shares: Sequence[float], seed: int) -> Iterator[Fall]:
    """Of ``(pairs, 2, shares, 3)``."""
    weights = np.concatenate(list(resample_weights(len(falls), _RESAMPLES, seed)))
    for i, side in enumerate(SIDES):
        for j, share in enumerate(shares):
            for k, order in enumerate(ORDERS):
                values = falls[:, i, j, k].astype(np.float64)
                interval = percentile_interval(weights @ values / len(values))
                beats = float(np.mean(values > falls[:, i, j, ORDERS.index("random")]))
                yield Fall(side, share, order, float(values.mean()), interval, beats)


def plot_deletion(path: Path, results: Sequence[tuple[str, DeletionResult]]) -> None:
    """Draws how the similarity falls with the share that is greyed out: a row for each named result."""
    figure = Figure(figsize=(9, 3.4 * len(results)), layout="constrained")
    panels = figure.subplots(len(results), 2, squeeze=False, sharex=True)
    for row, (name, result) in zip(panels, results, strict=True):
        for axes, side in zip(row, SIDES, strict=True):
            _panel(axes, result, side)
            axes.set_title(f"{name}: places of the {side}", fontsize=10)
        row[0].set_ylabel("similarity falls by")
    for axes in panels[-1]:
        axes.set_xlabel("share that is greyed out")
    panels[0][0].legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=110)


def _panel(axes: Axes, result: DeletionResult, side: Side) -> None:
    shares = sorted({fall.share for fall in result.falls})
    for order, (colour, mark) in zip(ORDERS, _LOOKS, strict=True):
        falls = [result.fall(side, share, order) for share in shares]
        axes.plot(shares, [f.mean for f in falls], color=colour, marker=mark, label=f"{order} first")
        low, high = zip(*(f.interval for f in falls), strict=True)
        axes.fill_between(shares, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(0.0, color="0.6", linewidth=0.8)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.spines[["top", "right"]].set_visible(False)
