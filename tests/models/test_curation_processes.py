"""Several processes curate one home at once, and may be killed: each sheet is there once, and none that was told."""

import json
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from tests_support import noise_picture

from models.catalogue import Catalogue
from models.home import Home
from models.taxonomy import Species, SpeciesId

ROOT = Path(__file__).resolve().parents[2]
PICTURES = 12

ADDER = """
import json, random, sys, time
from pathlib import Path
from models.catalogue import Catalogue
from models.curation import Curator, NewSheet, NewSpecies
from models.home import Home
from models.specimens import Specimen

root, url, pictures, number = json.loads(sys.argv[1])
with Catalogue.open(Home(Path(root), url)) as catalogue:
    curator = Curator(catalogue, f"curator {number}")
    paths = sorted(Path(pictures).iterdir())
    random.Random(number).shuffle(paths)
    print("ready", flush=True)
    input()
    for at in range(0, len(paths), 3):
        told = [NewSheet(p, NewSpecies("Rosa"), Specimen("K", None, p.stem[0])) for p in paths[at : at + 3]]
        for added in curator.add(told):
            print(json.dumps([added.sheet.sheet_id, added.outcome]), flush=True)
"""


@pytest.fixture
def home(empty_home: Home) -> Home:
    with Catalogue.open(empty_home, create=True) as catalogue, catalogue.writing() as writer:
        writer.put_species([Species(SpeciesId("mint"), "Mentha")])
    return empty_home


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(PICTURES):
        noise_picture(number, (20, 20)).save(folder / f"{number:02}.png")
    return folder


def start(home: Home, pictures: Path, number: int) -> subprocess.Popen[str]:
    arguments = json.dumps([str(home.root), home.database_url, str(pictures), number])
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(ADDER), arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_that_add_overlapping_sheets_agree(home: Home, pictures: Path) -> None:
    processes = [start(home, pictures, number) for number in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    outputs = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        outputs.append([json.loads(line) for line in output.splitlines()])
    told = [tuple(line) for output in outputs for line in output]
    assert len(told) == 4 * PICTURES
    added = [sheet_id for sheet_id, outcome in told if outcome == "added"]
    with Catalogue.open(home) as catalogue:
        ids = [sheet.sheet_id for sheet in catalogue.sheets()]
        assert sorted(added) == ids
        assert len(ids) == PICTURES
        assert {sheet.species_id for sheet in catalogue.sheets()} == {"rosa"}
        assert {sheet.specimen_key for sheet in catalogue.sheets()} == {"K::0", "K::1"}
        assert all(sheet.image in catalogue.image_store for sheet in catalogue.sheets())
        revisions = catalogue.revisions()
        assert [r.revision for r in revisions] == list(range(1, len(revisions) + 1))
        assert sum(r.sheets for r in revisions) == PICTURES
        changed = [change.sheet_id for change in catalogue.changes() if change.sheet_id is not None]
        assert sorted(changed) == ids


def test_a_killed_process_has_kept_what_it_told_and_left_nothing_half(home: Home, pictures: Path) -> None:
    generator = random.Random(3)
    told: set[str] = set()
    deaths = 0
    for number in range(4):
        process = start(home, pictures, number)
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        time.sleep(generator.uniform(0, 0.06))
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate(timeout=60)
        deaths += process.returncode == -signal.SIGKILL
        # The last line may be cut; what comes before it was returned by `add`.
        told |= {json.loads(line)[0] for line in output.splitlines(keepends=True) if line.endswith("]\n")}
        with Catalogue.open(home) as catalogue:
            sheets = list(catalogue.sheets())
            assert told <= {sheet.sheet_id for sheet in sheets}
            assert len(sheets) % 3 == 0 or number > 0  # a call enters its three sheets together
            assert all(sheet.image in catalogue.image_store for sheet in sheets)
            revisions = [revision.revision for revision in catalogue.revisions()]
            assert revisions == list(range(1, len(revisions) + 1))
    assert deaths > 0
