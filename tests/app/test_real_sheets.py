"""Real sheets come to a running service in three batches, are found, and are gone again after a roll-back."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from indexer.build_gallery import build
from indexer.import_dataset import import_dataset
from indexer.leave_one_out import LeaveOneOut, leave_one_out, specimens_of
from indexer.recipes import load_recipe
from indexer.run_folder import TrainingRun
from indexer.training_run import train
from indexer.worker import Worker
from models.bundle import load_bundle
from models.catalogue import Catalogue
from models.compute import Compute
from models.home import Home

SHARED = Path(os.environ.get("VOUCHER_SHARED", Path(__file__).resolve().parents[3] / "shared"))
WEIGHTS = next(iter(sorted((SHARED / "weights").glob("*deit*tiny*.safetensors"))), None)
VIOLACEAE = SHARED / "data" / "violaceae"

pytestmark = [
    pytest.mark.weights,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(WEIGHTS is None or not VIOLACEAE.is_dir(), reason="needs ../shared/weights and ../shared/data"),
]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[TestClient, Home]]:
    """A service with a worker over an index of another flora."""
    home, compute = Home(tmp_path / "home"), Compute.resolve("cpu")
    import_dataset(SHARED / "data" / "plantclef100", home)
    with Catalogue.open(home) as catalogue:
        config = load_recipe("frozen-whitened", True, {"backbone.weights": WEIGHTS})
        train(home, catalogue, TrainingRun.start(home, catalogue, config), compute)
        build(home, catalogue, compute)
    worker, ready = Worker(home, device="cpu"), threading.Event()
    thread = threading.Thread(target=worker.run, args=(lambda _: ready.set(),))
    thread.start()
    assert ready.wait(60)
    with TestClient(create_app(Settings(home=home.root, device="cpu")), base_url="http://localhost") as client:
        yield client, home
    worker.stop.set()
    thread.join(60)


def until(condition: Callable[[], Any], seconds: float = 300.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.2)
    return found


def post_batch(client: TestClient, files: list[tuple[Path, str]]) -> None:
    for path, species in files:
        told = {"species_id": species, "scientific_name": f"Viola {species}", "genus": "Viola", "family": "Violaceae"}
        response = client.post("/v1/sheets", files={"images": ("x", path.read_bytes())}, data=told)
        assert response.status_code == 201, response.text
        assert [sheet["outcome"] for sheet in response.json()["sheets"]] == ["added"]


def build_and_wait(client: TestClient) -> dict[str, Any]:
    job = client.post("/v1/index-builds").json()
    done = until(
        lambda: (j := client.get(f"/v1/jobs/{job['job_id']}").json())["state"] not in ("queued", "running") and j
    )
    assert done["state"] == "succeeded", done
    served = done["result"]["bundle_id"]
    if not done["result"]["activated"]:
        client.post(f"/v1/bundles/{served}/activate")
    until(lambda: client.get("/readyz").json()["bundle_id"] == served)
    return done["result"]


def retrieval(home: Home, species: frozenset[str] | None) -> LeaveOneOut:
    gallery = load_bundle(home, Compute.resolve("cpu")).gallery
    with Catalogue.open(home) as catalogue:
        return leave_one_out(gallery, specimens_of(catalogue.sheets()), species=species, most_doubtful=0)


def test_violaceae_in_three_batches(served: tuple[TestClient, Home]) -> None:
    client, home = served
    folders = sorted(p for p in VIOLACEAE.iterdir() if p.is_dir())
    files = [(path, folder.name) for folder in folders for path in sorted(folder.iterdir())]
    violets = frozenset(species for _, species in files)
    before = client.get("/readyz").json()
    assert retrieval(home, violets).sheets == 0
    told: list[str] = []
    bundles = [before["bundle_id"]]
    for batch in range(3):
        # Every third sheet, so that most species grow with every batch.
        post_batch(client, files[batch::3])
        result = build_and_wait(client)
        bundles.append(result["bundle_id"])
        assert (result["added"], result["embedded"]) == (len(files[batch::3]),) * 2
        found = retrieval(home, violets)
        told.append(
            f"batch {batch + 1}: +{result['added']} sheets in {result['seconds']:.1f} s, leave-one-out top-1 "
            f"{100 * found.top1:.1f} % ({100 * found.top1_interval[0]:.0f}-{100 * found.top1_interval[1]:.0f}) of "
            f"{found.sheets} sheets of {found.species} species, {found.alone} alone"
        )
    sys.stdout.write("\n".join(told) + "\n")
    assert found.sheets + found.alone == len(files) == 345
    assert found.top1_interval[0] > 3 / len(violets)
    photo = {"photos": ("x", files[0][0].read_bytes())}
    answer = client.post("/v1/identifications", files=photo, data={"top_k": "50"}).json()
    assert answer["bundle_id"] == bundles[-1]
    assert any(c["species_id"] in violets and c["sheets"] and not c["in_classifier"] for c in answer["candidates"])

    assert client.post(f"/v1/bundles/{bundles[1]}/activate").status_code == 200
    until(lambda: client.get("/readyz").json()["bundle_id"] == bundles[1])
    assert retrieval(home, violets).sheets + retrieval(home, violets).alone == len(files[0::3])
    assert client.post(f"/v1/bundles/{bundles[0]}/activate").status_code == 200
    until(lambda: client.get("/readyz").json()["species_count"] == before["species_count"])
    assert retrieval(home, violets).sheets == 0
