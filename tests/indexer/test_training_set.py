from pathlib import Path

import numpy as np
import pytest

from indexer.splits import Splits
from indexer.training_set import TrainingSet, read_training_set, usable_rows
from models.catalogue import Catalogue
from models.home import Home
from models.specimens import FieldPhoto, Image, Sheet, Split, SyntheticPhoto
from models.taxonomy import Species, SpeciesId, Taxonomy

SPECIES = [Species(SpeciesId(f"s{i}"), f"S{i}") for i in range(3)]


def image(number: int) -> Image:
    return Image(f"{number:064x}", f"{number + 1000:064x}", ".jpg", 5, 5, 9)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """s0: a training and a validation sheet, a photo. s1: two training sheets of one specimen. s2: a test sheet."""
    home = Home(tmp_path)

    def sheet(number: int, species: int, specimen: str) -> Sheet:
        one = image(number << 180)
        return Sheet(one.image_id, SPECIES[species].species_id, one, specimen)

    sheets = [sheet(1, 0, "A"), sheet(2, 0, "B"), sheet(3, 1, "C"), sheet(4, 1, "C"), sheet(5, 2, "D")]
    photo = image(6 << 180)
    drawn = [SyntheticPhoto("run", s.sheet_id, s.species_id, image(100 + i)) for i, s in enumerate(sheets)]
    with Catalogue.open(home, create=True) as catalogue, catalogue.writing() as writer:
        writer.put_species(SPECIES)
        writer.add_sheets(sheets)
        writer.add_field_photos([FieldPhoto(photo.image_id, SPECIES[0].species_id, photo, "A")])
        writer.add_synthetic_photos(drawn)
    return home


@pytest.fixture
def splits(home: Home) -> Splits:
    with Catalogue.open(home) as catalogue:
        ids = [s.sheet_id for s in catalogue.sheets()]
        photos = [p.photo_id for p in catalogue.field_photos()]
    order = [Split.TRAIN, Split.VALIDATION, Split.TRAIN, Split.TRAIN, Split.TEST]
    return Splits({**dict(zip(ids, order, strict=True)), photos[0]: Split.TRAIN})


def test_without_a_run_there_are_no_synthetic_photos(home: Home, splits: Splits) -> None:
    with Catalogue.open(home) as catalogue:
        data = read_training_set(catalogue, splits)
        assert len(data) == 5
        assert not data.is_synthetic.any()
        assert len(read_training_set(catalogue, splits, "another run")) == 5
    assert "synthetic" not in data.describe()


def test_only_those_after_training_sheets_come_in_and_never_validate(home: Home, splits: Splits) -> None:
    with Catalogue.open(home) as catalogue:
        data = read_training_set(catalogue, splits, "run")
        paths = {catalogue.image_store.path(p.image) for p in catalogue.synthetic_photos("run")}
    synthetic = np.flatnonzero(data.is_synthetic)
    assert data.classes[synthetic].tolist() == [0, 1, 1]
    assert data.is_field[synthetic].all()
    assert not data.is_validation[synthetic].any()
    assert not data.is_photo[synthetic].any()
    assert data.is_photo.sum() == 1
    assert {data.paths[i] for i in synthetic} < paths
    assert len(set(data.image_ids)) == len(data)
    assert len(data.taxonomy) == 2  # a species known from a test sheet alone is not learnt


def test_a_synthetic_photo_belongs_to_the_specimen_it_was_drawn_after(home: Home, splits: Splits) -> None:
    with Catalogue.open(home) as catalogue:
        data = read_training_set(catalogue, splits, "run")
    for row in np.flatnonzero(data.is_synthetic):
        sheets = ~data.is_field & (data.classes == data.classes[row])
        assert data.groups[row] in data.groups[sheets]
        assert data.groups[row] not in data.groups[data.is_photo]


def test_figures_for_people_count_real_photos(home: Home, splits: Splits) -> None:
    with Catalogue.open(home) as catalogue:
        data = read_training_set(catalogue, splits, "run")
    assert data.has_field_photos.tolist() == [True, False]
    assert data.describe() == (
        "2 species (1 with sheets and field photos, 1 herbarium-only), 4 sheets and 1 field photos, of which 1 images "
        "choose the epoch; and 3 synthetic photos, for species without real ones"
    )


def training_set(kinds: str, classes: list[int]) -> TrainingSet:
    """One image for each letter: s(heet), p(hoto), x (synthetic)."""
    n = len(kinds)
    return TrainingSet(
        Taxonomy(tuple(SPECIES)),
        tuple(map(str, range(n))),
        tuple(map(Path, map(str, range(n)))),
        np.array(classes),
        np.array([k != "s" for k in kinds]),
        np.arange(n),
        np.zeros(n, dtype=bool),
        np.array([k == "x" for k in kinds]),
    )


def test_synthetic_photos_stand_in_where_the_rows_have_no_real_ones() -> None:
    data = training_set("spxsxspxx", [0, 0, 0, 1, 1, 2, 2, 2, 2])
    everything = np.arange(9)
    assert usable_rows(data, everything).tolist() == [0, 1, 3, 4, 5, 6]
    hidden = np.array([0, 2, 3, 4, 5, 6, 7, 8])  # a fold that hides the photo of class 0
    assert usable_rows(data, hidden).tolist() == [0, 2, 3, 4, 5, 6]
    assert usable_rows(data, everything[::-1]).tolist() == [6, 5, 4, 3, 1, 0]
    assert usable_rows(data, everything[:0]).tolist() == []
