"""Arrays in `.npy` files: written plainly, read only in the shape and type that is expected."""

from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import BundleCorrupt

_REBUILD = "run `voucher build` to make a new index"


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as `.npy`."""
    np.save(path, np.ascontiguousarray(array), allow_pickle=False)


def read_array(path: Path, shape: tuple[int, ...], dtype: type[np.generic], *, memory_map: bool = False) -> Any:
    """The array of exactly this shape and type in `path`, read-only; with `memory_map` it stays in the file.

    Raises `BundleCorrupt` for anything else.
    """
    try:
        # The one reader of NumPy's that takes nothing but `.npy`: `np.load` also opens archives.
        mapped = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, SyntaxError, TokenError, EOFError, TypeError, OverflowError, MemoryError) as error:
        raise BundleCorrupt(f"{path.name} cannot be read ({error}); {_REBUILD}") from error
    if mapped.shape != shape or mapped.dtype != np.dtype(dtype) or not mapped.flags.c_contiguous:
        found = f"{mapped.dtype} {mapped.shape} instead of {dtype.__name__} {shape}"
        raise BundleCorrupt(f"{path.name} holds {found}; {_REBUILD}")
    if path.stat().st_size != mapped.offset + mapped.nbytes:
        raise BundleCorrupt(f"{path.name} is longer than its array; {_REBUILD}")
    # A view of the map as a plain array: every slice of a `memmap` would carry its bookkeeping along.
    array = mapped.view(np.ndarray) if memory_map else np.array(mapped)
    array.flags.writeable = False
    return array
