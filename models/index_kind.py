"""Which kind of index a segment of sheets gets, by its size. Pure."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from models.errors import InvalidConfig

IndexKind = Literal["flat", "hnsw", "ivf-sq8", "binary"]
RequestedKind = Literal["auto", "flat", "hnsw", "ivf-sq8", "binary"]

RECALL_AT = 10
RECALL_FLOOR = 0.95
"""Recall@10 against exact search that an index must reach, or the segment is searched exactly."""

_BANDWIDTH_BYTES_PER_SECOND = 10e9
"""What one core of a current server reads from memory: exact search is bound by it, since it reads every vector once.
A constant, so that the same sheets get the same index on every machine; `voucher bench index` measures it."""
_SCAN_BUDGET_SECONDS = 0.05
"""That a question may wait for an exact scan: little beside a network on a CPU, much beside one on a GPU."""
_CODE_BUDGET_BYTES = 8 << 30
"""Of 8-bit codes, which searches touch here and there, so that they must stay in memory."""


def choose_kind(rows: int, dimensions: int, requested: RequestedKind = "auto") -> IndexKind:
    """The index for ``(rows, dimensions)`` float32 vectors, unless another is requested.

    ``flat``: exact, while reading all vectors takes at most 50 ms, 325,000 rows of 384. ``ivf-sq8``: inverted lists of
    8-bit codes while those stay below 8 GiB, 22 million rows of 384; built in a tenth of the time that an HNSW graph
    takes, which has to be asked for. ``binary``: a bit a dimension. All but ``flat`` only propose rows, whose cosines
    are then taken from the vectors themselves.

    Raises `InvalidConfig` for an unknown kind.
    """
    check_kind(requested)
    if requested != "auto":
        return requested
    if rows * dimensions * 4 <= _BANDWIDTH_BYTES_PER_SECOND * _SCAN_BUDGET_SECONDS:
        return "flat"
    return "ivf-sq8" if rows * dimensions <= _CODE_BUDGET_BYTES else "binary"


def check_kind(requested: object) -> None:
    """Raises `InvalidConfig` unless this is ``auto`` or one of the kinds."""
    if requested not in get_args(RequestedKind):
        raise InvalidConfig(f"the kind of index is one of {', '.join(get_args(RequestedKind))}, not {requested!r}")


@dataclass(frozen=True)
class SearchEffort:
    """How thoroughly an index is searched, and the recall@10 that this gave when the index was made.

    `effort` is the number of lists read (``ivf-sq8``), the length of the list of candidates (``hnsw``), or the number
    of rows whose cosines are taken (``binary``), for ten results. `asked` tells what the recall was measured with:
    sheets moved at random by their own length (``perturbed sheets``), or ``given queries``.
    """

    effort: int
    recall: float
    queries: int
    asked: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> "SearchEffort":
        """Inverse of `to_json`. Raises `TypeError` or `ValueError` for anything else."""
        effort = cls(**value)
        if type(effort.effort) is not int or not 1 <= effort.effort < 1 << 31:
            raise ValueError(f"effort {effort.effort!r}")
        if type(effort.recall) not in (int, float) or not 0.0 <= effort.recall <= 1.0:
            raise ValueError(f"recall {effort.recall!r}")
        if type(effort.queries) is not int or effort.queries < 0 or not isinstance(effort.asked, str):
            raise ValueError("queries of a recall")
        return effort
