"""Dataset layouts → species and records. The only parser of what curators bring."""

from pathlib import Path

from indexer.sources.folders import read_folders
from indexer.sources.manifest import read_manifest
from indexer.sources.plantclef import read_plantclef
from indexer.sources.records import Dataset, Layout, Record
from models.errors import InvalidDataset

__all__ = ["Dataset", "Layout", "Record", "detect_layout", "read_dataset"]

_MANIFEST_NAME = "manifest.csv"
_TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
_LAYOUTS_IN_WORDS = """voucher reads three layouts:
  manifest   a folder with manifest.csv, or such a file itself: one line an image, with the columns
             path,species_id,role (role is sheet or field)
  folders    sheet/<species>/*.jpg for herbarium sheets and field/<species>/*.jpg for field photos
  plantclef  train/herbarium/<species>/, train/photo/<species>/ and list/*.txt"""


def detect_layout(path: Path) -> Layout:
    """Layout of the dataset at `path`. Raises `InvalidDataset` when it is none of the three."""
    if path.is_file():
        if path.suffix.lower() in _TABLE_SUFFIXES:
            return Layout.MANIFEST
        raise InvalidDataset(f"{path} is neither a folder nor a .csv file.\n{_LAYOUTS_IN_WORDS}")
    if not path.is_dir():
        raise InvalidDataset(f"there is no folder or file {path}; check the spelling of the path")
    if (path / _MANIFEST_NAME).is_file():
        return Layout.MANIFEST
    if (path / "train" / "herbarium").is_dir() or (path / "list" / "train.txt").is_file():
        return Layout.PLANTCLEF
    if (path / "sheet").is_dir() or (path / "field").is_dir():
        return Layout.FOLDERS
    entries = sorted(entry.name for entry in path.iterdir())
    found = ", ".join(entries[:5]) + (f" and {len(entries) - 5} more" if len(entries) > 5 else "")
    raise InvalidDataset(
        f"the layout of {path} is not known (it holds {found or 'nothing'}).\n{_LAYOUTS_IN_WORDS}\n"
        "If each folder is a species and holds only sheets, put these folders into one named sheet."
    )


def read_dataset(path: Path, layout: Layout | None = None, *, role_required: bool = True) -> Dataset:
    """The dataset at `path`, with its lists read and checked.

    Unless `role_required`, a manifest without the column role lists field photos.

    Raises `InvalidDataset` when the layout is not known or does not fit, or a list has mistakes.
    """
    layout = detect_layout(path) if layout is None else layout
    match layout:
        case Layout.MANIFEST:
            return read_manifest(path / _MANIFEST_NAME if path.is_dir() else path, role_required=role_required)
        case Layout.PLANTCLEF:
            return read_plantclef(path)
        case Layout.FOLDERS:
            return read_folders(path)
