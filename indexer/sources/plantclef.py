"""Layout of the PlantCLEF sheet-and-photo challenges: ``train/herbarium``, ``train/photo``, ``test``, ``list``."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from indexer.sources.folders import files_below, species_folders, species_of_folder
from indexer.sources.records import Dataset, Layout, Problems, Record, parse_species_id, read_text
from models.errors import InvalidDataset
from models.specimens import Role, Split
from models.taxonomy import Species, SpeciesId

_PLACES = ((("train", "herbarium"), Role.SHEET), (("train", "photo"), Role.FIELD))


def read_plantclef(root: Path) -> Dataset:
    """The training images of ``list/train.txt`` (else of the folders) and the test photos, if present.

    Names are those of ``species_list.txt``; genus and family are those of ``species_taxonomy.txt``, whose
    genus may be newer than the name. Raises `InvalidDataset`.
    """
    lists = root / "list"
    notes: list[str] = []
    names: set[str] = set()
    used: set[SpeciesId] = set()
    count = 0
    for record in _records(root):
        count += 1
        names.add(record.name)
        used.add(record.species_id)
    if not count:
        raise InvalidDataset(
            f"{root} has no image in list/train.txt, train/herbarium/<species>/ or train/photo/<species>/"
        )
    _note_unlisted(root, names, notes)
    return Dataset(
        layout=Layout.PLANTCLEF,
        root=root,
        species=_species(lists, used),
        record_count=count,
        records=lambda: _records(root),
        told=frozenset({"split"} if (root / "test").is_dir() else ()),
        notes=tuple(notes),
    )


def _records(root: Path) -> Iterator[Record]:
    train, truth = root / "list" / "train.txt", root / "list" / "groundtruth.txt"
    yield from _listed(root, train) if train.is_file() else _walked(root)
    if (root / "test").is_dir() and truth.is_file():
        yield from _listed(root, truth)


def _listed(root: Path, file: Path) -> Iterator[Record]:
    """Records of a list of ``path species`` lines."""
    problems = Problems(file)
    for line, text in enumerate(read_text(file).splitlines(), start=1):
        if not text.strip():
            continue
        try:
            yield _listed_record(root, text)
        except ValueError as error:
            problems.add(line, str(error))
    problems.raise_if_any()


def _listed_record(root: Path, text: str) -> Record:
    name, _, species = text.strip().rpartition(" ")
    path = PurePosixPath(name.strip())
    if not name.strip():
        raise ValueError(f"expected a path and a species, found {text.strip()!r}")
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"the path {name!r} leaves the dataset's folder")
    species_id = parse_species_id(species)
    if path.parts[0] == "test":
        return Record(root / path, path.as_posix(), species_id, Role.FIELD, split=Split.TEST)
    for place, role in _PLACES:
        if path.parts[:2] == place:
            if len(path.parts) > 3 and path.parts[2] != species_id:
                raise ValueError(f"{name} lies in the folder of {path.parts[2]}, but is listed as {species_id}")
            return Record(root / path, path.as_posix(), species_id, role)
    raise ValueError(f"{name!r} is not below train/herbarium/, train/photo/ or test/")


def _walked(root: Path) -> Iterator[Record]:
    for place, role in _PLACES:
        for folder in species_folders(root.joinpath(*place)):
            for file in files_below(folder):
                species_id = species_of_folder(folder)
                yield Record(file, file.relative_to(root).as_posix(), species_id, role)


def _note_unlisted(root: Path, names: set[str], notes: list[str]) -> None:
    """Say which images are there but not listed, and whether the test photos are listed but not there."""
    places = [place for place, _ in _PLACES] + [("test",)]
    unlisted = [
        name
        for place in places
        for file in files_below(root.joinpath(*place))
        if (name := file.relative_to(root).as_posix()) not in names
    ]
    if unlisted:
        notes.append(
            f"{len(unlisted):,} images are in no list with a species and were left out; the first is {unlisted[0]}"
        )
    truth = root / "list" / "groundtruth.txt"
    if truth.is_file() and not (root / "test").is_dir():
        absent = sum(1 for _ in _listed(root, truth))
        notes.append(f"the folder test/ is absent: its {absent:,} listed test photos were left out")


def _species(lists: Path, used: set[SpeciesId]) -> tuple[Species, ...]:
    names = dict(_pairs(lists / "species_list.txt"))
    taxonomy = dict(_taxonomy(lists / "species_taxonomy.txt"))
    species = []
    for species_id in sorted(used | names.keys()):
        name, genus, family = taxonomy.get(species_id, ("", "", ""))
        species.append(Species(species_id, names.get(species_id) or name or species_id, genus or None, family or None))
    return tuple(species)


def _pairs(file: Path) -> Iterator[tuple[SpeciesId, str]]:
    """Identifier and name of ``id; name`` lines, the name as it is written."""
    for fields in _semicolon_lines(file, 2):
        yield parse_species_id(fields[0]), fields[1]


def _taxonomy(file: Path) -> Iterator[tuple[SpeciesId, tuple[str, str, str]]]:
    for fields in _semicolon_lines(file, 4):
        if fields[0] != "class_id":
            yield parse_species_id(fields[0]), (fields[1], fields[2], fields[3])


def _semicolon_lines(file: Path, count: int) -> Iterator[list[str]]:
    if not file.is_file():
        return
    problems = Problems(file)
    for line, text in enumerate(read_text(file).splitlines(), start=1):
        fields = [field.strip() for field in text.split(";", count - 1)]
        if len(fields) == count and fields[0]:
            yield fields
        elif text.strip():
            problems.add(line, f"expected {count} values separated by semicolons, found {text.strip()!r}")
    problems.raise_if_any()
