"""Dataset layouts → records: all three layouts, and words a curator can act on when a list is wrong."""

import os
from pathlib import Path

import pytest

from indexer.sources import Layout, detect_layout, read_dataset
from models.errors import InvalidDataset
from models.specimens import Organ, Role, Specimen, Split

HEADER = "path,species_id,role"


def touch(root: Path, *names: str) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"pixels")
    return root


def manifest(root: Path, text: str, encoding: str = "utf-8") -> Path:
    root.mkdir(exist_ok=True)
    (root / "manifest.csv").write_bytes(text.encode(encoding))
    return root


def refusal(path: Path, layout: Layout | None = None) -> str:
    with pytest.raises(InvalidDataset) as error:
        read_dataset(path, layout)
    return str(error.value)


def test_layouts_are_told_apart(tmp_path: Path) -> None:
    assert detect_layout(touch(tmp_path / "a", "sheet/rose/1.jpg")) is Layout.FOLDERS
    assert detect_layout(touch(tmp_path / "b", "field/rose/1.jpg")) is Layout.FOLDERS
    assert detect_layout(touch(tmp_path / "c", "train/herbarium/1/1.jpg")) is Layout.PLANTCLEF
    assert detect_layout(touch(tmp_path / "d", "list/train.txt")) is Layout.PLANTCLEF
    assert detect_layout(manifest(tmp_path / "a", HEADER)) is Layout.MANIFEST
    assert detect_layout(tmp_path / "a" / "manifest.csv") is Layout.MANIFEST


def test_unknown_layout_says_what_was_found_and_what_is_read(tmp_path: Path) -> None:
    message = refusal(touch(tmp_path, *(f"V{n:02}/1.jpg" for n in range(7))))
    assert "it holds V00, V01, V02, V03, V04 and 2 more" in message
    for hint in (
        "manifest.csv",
        "sheet/<species>/",
        "train/herbarium/<species>/",
        "put these folders into one named sheet",
    ):
        assert hint in message
    assert "there is no folder or file" in refusal(tmp_path / "absent")
    assert "neither a folder nor a .csv" in refusal(touch(tmp_path, "one.jpg") / "one.jpg")


def test_folders_give_species_role_and_test_split(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "sheet/Rosa canina/b 2.jpg",
        "sheet/Rosa canina/a.TIF",
        "field/Rosa canina/deep/er/1.png",
        "field/Äpfel/ü.jpg",
        "test/field/Rosa canina/9.jpg",
        "sheet/Rosa canina/.hidden.jpg",
        "sheet/Rosa canina/Thumbs.db",
        "sheet/stray.jpg",
    )
    dataset = read_dataset(tmp_path)
    found = [(r.name, r.species_id, r.role, r.split) for r in dataset.records()]
    assert found == [
        ("sheet/Rosa canina/a.TIF", "Rosa canina", Role.SHEET, None),
        ("sheet/Rosa canina/b 2.jpg", "Rosa canina", Role.SHEET, None),
        ("field/Rosa canina/deep/er/1.png", "Rosa canina", Role.FIELD, None),
        ("field/Äpfel/ü.jpg", "Äpfel", Role.FIELD, None),
        ("test/field/Rosa canina/9.jpg", "Rosa canina", Role.FIELD, Split.TEST),
    ]
    assert dataset.record_count == 5
    assert [(s.species_id, s.scientific_name) for s in dataset.species] == [
        ("Rosa canina", "Rosa canina"),
        ("Äpfel", "Äpfel"),
    ]
    assert len(dataset.notes) == 1
    assert "1 files lie in no species' folder" in dataset.notes[0]
    assert dataset.told == {"split"}
    assert len(list(dataset.records())) == 5  # a second time as well


def test_decomposed_folder_name_is_the_composed_species(tmp_path: Path) -> None:
    dataset = read_dataset(touch(tmp_path, "sheet/A\u0308pfel/1.jpg", "field/Äpfel/1.jpg"))
    assert [s.species_id for s in dataset.species] == ["Äpfel"]


def test_folders_without_an_image_are_refused(tmp_path: Path) -> None:
    (tmp_path / "sheet" / "rose").mkdir(parents=True)
    assert "holds no image" in refusal(tmp_path)
    assert "neither a folder sheet nor a folder field" in refusal(tmp_path / "sheet", Layout.FOLDERS)
    touch(tmp_path, "sheet/ro\x07se/1.jpg")
    assert "must be printable" in refusal(tmp_path)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_manifest_of_any_spreadsheet_is_read(tmp_path: Path, delimiter: str, encoding: str, newline: str) -> None:
    rows = [
        ["Path", "species_id ", "ROLE", "scientific_name", "organ", "split"],
        ["field/ü 1.jpg", "7", "Field", "Rosa canina L.", "flower", "test"],
        ["", "", "", "", "", ""],
        ["sheet/2.jpg", " 7", "sheet", "", "", ""],
        ["sheet/3.jpg", "8", "sheet"],
    ]
    text = newline.join(delimiter.join(row) for row in rows) + newline
    dataset = read_dataset(manifest(tmp_path, text, encoding))
    assert dataset.record_count == 3
    first, second, third = dataset.records()
    assert (first.name, first.path) == ("field/ü 1.jpg", tmp_path / "field/ü 1.jpg")
    assert (first.species_id, first.role, first.organ, first.split) == ("7", Role.FIELD, Organ.FLOWER, Split.TEST)
    assert (second.species_id, second.role, second.organ, second.split) == ("7", Role.SHEET, None, None)
    assert third.species_id == "8"
    assert [s.scientific_name for s in dataset.species] == ["Rosa canina L.", "8"]
    assert dataset.told == {"organ", "split"}


def test_manifest_keeps_all_that_it_tells(tmp_path: Path) -> None:
    text = (
        "path,species_id,role,scientific_name,genus,family,specimen,observation,institution_code,collection_code,"
        "catalog_number,license,rights_holder,collector\n"
        '"a, b.jpg",7,sheet,"Rosa ""x"" L.",Rosa,Rosaceae,spec 1,,P,herb,00123,CC0,MNHN,Linné\n'
        "c.jpg,7,sheet,,,,,,P,,00124,,,\n"
        "d.jpg,7,field,,,,ignored,obs 1,,,,,,\n"
        "e.jpg,7,field,,,,,,,,,,,\n"
    )
    dataset = read_dataset(manifest(tmp_path, text))
    a, c, d, e = dataset.records()
    assert (a.name, a.plant_key, a.license, a.rights_holder) == ("a, b.jpg", "spec 1", "CC0", "MNHN")
    assert a.specimen == Specimen("P", "herb", "00123")
    assert (c.plant_key, d.plant_key, e.plant_key) == ("P::00124", "obs 1", None)
    (species,) = dataset.species
    assert (species.scientific_name, species.genus, species.family) == ('Rosa "x" L.', "Rosa", "Rosaceae")
    assert "unused columns: collector" in dataset.notes[0]
    assert {"plant_key", "institution_code", "license"} <= dataset.told


def test_backslashes_of_windows_are_separators(tmp_path: Path) -> None:
    (record,) = read_dataset(manifest(tmp_path, f"{HEADER}\nsheet\\rose\\1.jpg,rose,sheet\n")).records()
    assert record.path == tmp_path / "sheet/rose/1.jpg"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,species_id\na.jpg,7\n", "line 1: the column role is missing; found: path, species_id; known"),
        ("", "found: an empty line"),
        (f"{HEADER},role\n", "line 1: the column role appears twice"),
        (f"{HEADER},spilt\n", "line 1: there is no column spilt; was split meant?"),
        (f"{HEADER}\n", "lists no image"),
        (f"{HEADER}\na.jpg,7,herbarium\n", "line 2: column role: expected one of sheet, field; found 'herbarium'"),
        (f"{HEADER}\na.jpg,7,\n", "line 2: column role: expected one of sheet, field; found nothing"),
        (f"{HEADER}\n\na.jpg,,sheet\n", "line 3: the species is empty"),
        (f"{HEADER}\n,7,sheet\n", "line 2: column path: it is empty"),
        (f"{HEADER},split\na.jpg,7,sheet,val\n", "column split: expected one of train, validation, test; found 'val'"),
        (f"{HEADER},organ\na.jpg,7,field,root\n", "column organ: expected one of leaf, flower"),
        (f"{HEADER}\n../a.jpg,7,sheet\n", "line 2: column path: '../a.jpg' leaves the manifest's folder"),
        (f"{HEADER}\nx\\..\\..\\a.jpg,7,sheet\n", "leaves the manifest's folder"),
        (f"{HEADER}\n/etc/a.jpg,7,sheet\n", "'/etc/a.jpg' is absolute"),
        (f"{HEADER}\nC:\\a.jpg,7,sheet\n", "is absolute"),
        (f"{HEADER}\na.jpg,7,sheet,extra\n", "line 2: 4 values for 3 columns"),
        (f'{HEADER}\n"a"b.jpg,7,sheet\n', "line 2: not a CSV table"),
        (f"{HEADER}\na.jpg,{'7' * 201},sheet\n", "at most 200 long"),
        (
            f"{HEADER},family\na.jpg,7,sheet,Rosaceae\nb.jpg,8,sheet,Poaceae\nc.jpg,7,sheet,Fabaceae\n",
            "line 4: column family: species 7 is 'Fabaceae' here, but 'Rosaceae' in line 2",
        ),
    ],
)  # fmt: skip
def test_mistake_in_a_manifest_is_named(tmp_path: Path, text: str, expected: str) -> None:
    message = refusal(manifest(tmp_path, text))
    assert "manifest.csv" in message
    assert expected in message


def test_all_mistakes_are_listed_up_to_twenty(tmp_path: Path) -> None:
    message = refusal(manifest(tmp_path, HEADER + "\n" + "a.jpg,7,other\n" * 23))
    assert message.count("column role") == 20
    assert "… and 3 more" in message


def test_manifest_in_another_encoding_names_the_remedy(tmp_path: Path) -> None:
    assert "CSV UTF-8" in refusal(manifest(tmp_path, f"{HEADER}\nfleur été.jpg,7,sheet\n", "latin-1"))
    assert "cannot be read" in refusal(tmp_path / "nowhere", Layout.MANIFEST)


def plantclef(root: Path, **lists: str) -> Path:
    touch(root, "train/herbarium/10/1.jpg", "train/photo/10/2 a.jpg", "train/photo/20/3.jpg")
    (root / "list").mkdir()
    for name, text in lists.items():
        (root / "list" / f"{name}.txt").write_text(text, encoding="utf-8")
    return root


TRAIN = "train/herbarium/10/1.jpg 10\ntrain/photo/10/2 a.jpg 10\ntrain/photo/20/absent.jpg 20\n"


def test_plantclef_lists_are_obeyed(tmp_path: Path) -> None:
    root = plantclef(
        tmp_path,
        train=TRAIN,
        species_list="10; Merremia umbellata (L.) Hallier f.\n20; Costus\n30; Rosa\n",
        species_taxonomy="class_id;species_name;genus;family\n10;Camonea umbellata;Camonea;Convolvulaceae\n",
        groundtruth="test/7.jpg 10\n",
    )
    dataset = read_dataset(root)
    assert [(r.name, r.species_id, r.role, r.split) for r in dataset.records()] == [
        ("train/herbarium/10/1.jpg", "10", Role.SHEET, None),
        ("train/photo/10/2 a.jpg", "10", Role.FIELD, None),
        ("train/photo/20/absent.jpg", "20", Role.FIELD, None),
    ]
    assert dataset.record_count == 3
    assert [s.species_id for s in dataset.species] == ["10", "20", "30"]
    first = dataset.species[0]
    assert first.scientific_name == "Merremia umbellata (L.) Hallier f."
    assert (first.genus, first.family) == ("Camonea", "Convolvulaceae")
    assert dataset.notes == (
        "1 images are in no list with a species and were left out; the first is train/photo/20/3.jpg",
        "the folder test/ is absent: its 1 listed test photos were left out",
    )
    assert dataset.told == frozenset()


def test_plantclef_test_photos_take_their_species_from_the_ground_truth(tmp_path: Path) -> None:
    root = touch(plantclef(tmp_path, train=TRAIN, groundtruth="test/7.jpg 20\n"), "test/7.jpg", "test/8.jpg")
    dataset = read_dataset(root)
    assert [(r.name, r.species_id, r.split) for r in dataset.records()][-1] == ("test/7.jpg", "20", Split.TEST)
    assert "2 images are in no list" in dataset.notes[0]
    assert dataset.told == {"split"}


def test_plantclef_without_lists_is_read_from_its_folders(tmp_path: Path) -> None:
    dataset = read_dataset(plantclef(tmp_path))
    assert [(r.name, r.role) for r in dataset.records()] == [
        ("train/herbarium/10/1.jpg", Role.SHEET),
        ("train/photo/10/2 a.jpg", Role.FIELD),
        ("train/photo/20/3.jpg", Role.FIELD),
    ]
    assert [s.scientific_name for s in dataset.species] == ["10", "20"]
    assert dataset.notes == ()


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({"train": "train/photo/10/2.jpg\n"}, "line 1: expected a path and a species"),
        ({"train": TRAIN + "/etc/1.jpg 10\n"}, "line 4: the path '/etc/1.jpg' leaves"),
        ({"train": "train/photo/../../1.jpg 10\n"}, "leaves the dataset's folder"),
        ({"train": "train/leaves/10/1.jpg 10\n"}, "is not below train/herbarium/"),
        ({"train": "train/photo/10/1.jpg 20\n"}, "lies in the folder of 10, but is listed as 20"),
        ({"train": "\n"}, "has no image"),
        ({"train": TRAIN, "species_list": "10 Rosa\n"}, "line 1: expected 2 values separated by semicolons"),
    ],
)
def test_mistake_in_a_plantclef_list_is_named(tmp_path: Path, lists: dict[str, str], expected: str) -> None:
    assert expected in refusal(plantclef(tmp_path, **lists))


def test_list_in_another_encoding_or_unreadable_is_refused(tmp_path: Path) -> None:
    root = plantclef(tmp_path)
    (root / "list" / "train.txt").write_bytes(b"train/photo/10/\xe9.jpg 10")
    assert "not UTF-8" in refusal(root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_list_is_refused(tmp_path: Path) -> None:
    root = plantclef(tmp_path, train=TRAIN)
    (root / "list" / "train.txt").chmod(0)
    assert "cannot be read" in refusal(root)
