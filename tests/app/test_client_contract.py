"""The client's types are the service's, field by field, and its methods work on a real service and worker."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests_support import picture_bytes

from app.main import create_app
from app.settings import Settings
from indexer.client import Conflict, InvalidRequest, NotFound, VoucherClient, answers
from indexer.worker import Worker
from models.catalogue import Catalogue
from models.home import Home

SCHEMAS: dict[type[answers.Answer], str] = {
    answers.Explanation: "ExplanationBody",
    answers.SheetEvidence: "SheetEvidence",
    answers.Candidate: "CandidateBody",
    answers.Decision: "DecisionBody",
    answers.RollUp: "RollUpBody",
    answers.Unknown: "UnknownBody",
    answers.SpeciesName: "SpeciesName",
    answers.PredictionSet: "PredictionSetBody",
    answers.Ignored: "IgnoredBody",
    answers.SheetExplanation: "SheetExplanationBody",
    answers.Explanations: "ExplanationsBody",
    answers.Identification: "IdentificationBody",
    answers.Embeddings: "EmbeddingsBody",
    answers.Species: "SpeciesBody",
    answers.SpeciesPage: "SpeciesPage",
    answers.Sheet: "SheetBody",
    answers.SheetPage: "SheetPage",
    answers.AddedSheet: "AddedSheetBody",
    answers.AddedSheets: "AddedSheetsBody",
    answers.JobProgress: "JobProgressBody",
    answers.Job: "JobBody",
    answers.JobList: "JobList",
    answers.Batch: "BatchBody",
    answers.Validation: "ValidationBody",
    answers.BundleChanges: "BundleChangesBody",
    answers.Bundle: "BundleBody",
    answers.BundleList: "BundleList",
    answers.Readiness: "Readiness",
    answers.ReadinessCheck: "ReadinessCheck",
}

LOOSER = {
    # The rows of a batch cite sheets by their ids alone.
    ("SheetEvidence", "image_url"),
    ("SheetEvidence", "thumbnail_url"),
}


@pytest.fixture(scope="module")
def components(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    schemas: dict[str, Any] = create_app(Settings(home=tmp_path_factory.mktemp("home"))).openapi()["components"][
        "schemas"
    ]
    return schemas


def kind_of(schema: dict[str, Any]) -> Any:
    """What a value may be, without words and ranges; what is referred to by the client's name for it."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return next((kind.__name__ for kind, theirs in SCHEMAS.items() if theirs == name), name)
    if "anyOf" in schema:
        return ("any of", frozenset(str(kind_of(each)) for each in schema["anyOf"]))
    if schema.get("type") == "array":
        return ("list of", str(kind_of(schema.get("items", {}))))
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return ("by name", str(kind_of(schema["additionalProperties"])))
    if "enum" in schema:
        return ("one of", frozenset(schema["enum"]))
    return schema.get("type", "anything")


@pytest.mark.parametrize(("kind", "name"), SCHEMAS.items(), ids=lambda value: getattr(value, "__name__", value))
def test_fields_and_their_types_are_the_services(
    components: dict[str, Any], kind: type[answers.Answer], name: str
) -> None:
    mine, theirs = kind.model_json_schema(mode="validation"), components[name]
    assert set(mine["properties"]) == set(theirs["properties"])
    for field, schema in theirs["properties"].items():
        if (name, field) not in LOOSER:
            assert kind_of(mine["properties"][field]) == kind_of(schema), f"{name}.{field}"
    assert set(mine.get("required", [])) <= set(theirs.get("required", []))


def test_every_answer_of_the_client_is_compared() -> None:
    types = {kind for kind in vars(answers).values() if isinstance(kind, type) and issubclass(kind, answers.Answer)} - {
        answers.Answer
    }
    # A row of a batch is a line of text to OpenAPI.
    assert types - set(SCHEMAS) == {answers.BatchResult, answers.BareIdentification}


@pytest.fixture(scope="module")
def client(service_with_worker: tuple[str, Home]) -> Iterator[VoucherClient]:
    with VoucherClient(service_with_worker[0]) as client:
        yield client


@pytest.fixture(scope="module")
def photos(service_with_worker: tuple[str, Home]) -> list[Path]:
    with Catalogue.open(service_with_worker[1]) as catalogue:
        return [catalogue.image_store.path(photo.image) for photo in catalogue.field_photos()][:3]


def test_plants_are_named_with_sheets_that_can_be_fetched(client: VoucherClient, photos: list[Path]) -> None:
    answer = client.identify(photos[:2], organs=["leaf", "flower"], top_k=3)
    assert answer.photo_count == 2
    assert len(answer.candidates) == 3
    sheet = answer.candidates[0].sheets[0]
    assert sheet.thumbnail_url is not None
    assert client.fetch(sheet.thumbnail_url).startswith(b"\xff\xd8")
    family = answer.candidates[-1].family
    within = client.identify(photos[0].read_bytes(), families=[str(family)])
    assert {candidate.family for candidate in within.candidates} == {family}
    assert within.probability_outside is not None
    with pytest.raises(InvalidRequest) as caught:
        client.identify(photos[0], genera=["Nonexistus"])
    assert caught.value.kind == "invalid-candidates"
    assert caught.value.request_id


def test_vectors_come_with_their_space(client: VoucherClient, photos: list[Path]) -> None:
    found = client.embeddings(photos)
    assert len(found.embeddings) == 3
    assert len(found.embeddings[0]) == found.dimensions
    assert client.embeddings(photos[:1], role="field").space_id != found.space_id


def test_what_a_checklist_has_too_much_is_left_out_when_that_is_asked_for(
    client: VoucherClient, photos: list[Path]
) -> None:
    species = next(client.species()).species_id
    with pytest.raises(InvalidRequest, match="ignore_unlisted"):
        client.identify(photos[0], species_ids=[species, "nowhere"])
    answer = client.identify(photos[0], species_ids=[species, "nowhere"], ignore_unlisted=True)
    assert [candidate.species_id for candidate in answer.candidates] == [species]
    assert answer.ignored == answers.Ignored(count=1, entries=("nowhere",))
    batch = client.submit_batch(photos[:1], species_ids=[species, "nowhere"], ignore_unlisted=True)
    assert client.wait_for_batch(batch.batch_id, timeout_seconds=60, poll_seconds=0.05).state == "succeeded"
    (row,) = client.batch_results(batch.batch_id)
    assert row.answer is not None
    assert [candidate.species_id for candidate in row.answer.candidates] == [species]


def test_any_sheet_of_the_index_is_explained_when_it_is_asked_for(client: VoucherClient, photos: list[Path]) -> None:
    cited = client.identify(photos[:2], sheets_per_candidate=2).candidates[-1].sheets[-1].sheet_id
    found = client.explain(photos[:2], [cited])
    (sheet,) = found.explanations
    assert sheet.sheet_id == cited
    assert sheet.explanation is not None
    assert sheet.explanation.photo_position in (1, 2)
    for address in (sheet.explanation.photo_heat_map_url, sheet.explanation.sheet_heat_map_url):
        assert client.fetch(address).startswith(b"\x89PNG")
    with pytest.raises(NotFound):
        client.explain(photos[0], ["0" * 20])


def test_the_collection_is_read_and_changed(client: VoucherClient) -> None:
    species = list(client.species())
    assert client.get_species(species[0].species_id) == species[0]
    before = len(list(client.sheets(species[0].species_id)))
    (added,) = client.add_sheets([picture_bytes(77)], species_id=species[0].species_id, curator="Ada")
    assert added.outcome == "added"
    assert client.get_sheet(added.sheet_id).sheet_id == added.sheet_id
    assert len(list(client.sheets(species[0].species_id))) == before + 1
    assert client.remove_sheet(added.sheet_id, curator="Ada").removed
    assert [s.sheet_id for s in client.sheets(species[0].species_id, removed=True)] == [added.sheet_id]
    with pytest.raises(NotFound):
        client.get_sheet("0" * 20)


def test_a_batch_is_sent_waited_for_read_and_deleted(client: VoucherClient, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "torn.jpg").write_bytes(photos[0].read_bytes()[:300])
    seen: list[answers.Batch] = []
    batch = client.submit_batch([*photos, tmp_path / "torn.jpg"], top_k=2)
    done = client.wait_for_batch(batch.batch_id, timeout_seconds=60, poll_seconds=0.05, report=seen.append)
    assert (done.state, done.plants, done.failed) == ("succeeded", 4, 1)
    assert seen[-1] == done
    rows = list(client.batch_results(batch.batch_id))
    assert [row.position for row in rows] == [0, 1, 2, 3]
    assert rows[3].error
    assert rows[0].answer is not None
    alone = client.identify(photos[0], top_k=2)
    assert [c.species_id for c in rows[0].answer.candidates] == [c.species_id for c in alone.candidates]
    client.delete_batch(batch.batch_id)
    with pytest.raises(NotFound):
        client.get_batch(batch.batch_id)


def test_results_of_a_batch_under_way_are_a_conflict(
    client: VoucherClient, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    real = Worker._batch_workflow

    def held(self: Worker, request: dict[str, Any]) -> dict[str, Any]:
        release.wait(30)
        return real(self, request)

    monkeypatch.setattr(Worker, "_batch_workflow", held)
    batch = client.submit_batch(photos[:1])
    with pytest.raises(Conflict):
        list(client.batch_results(batch.batch_id))
    assert list(client.batch_results(batch.batch_id, partial=True)) == []
    release.set()
    assert client.wait_for_batch(batch.batch_id, timeout_seconds=60, poll_seconds=0.05).state == "succeeded"


def test_an_index_is_built_and_served(client: VoucherClient) -> None:
    before = client.readiness().bundle_id
    job = client.start_build(curator="Ada")
    done = client.wait_for_job(job.job_id, timeout_seconds=60, poll_seconds=0.05)
    assert done.state == "succeeded"
    assert job.job_id in {each.job_id for each in client.jobs()}
    bundles = {bundle.bundle_id: bundle for bundle in client.bundles()}
    assert done.result is not None
    assert bundles[done.result["bundle_id"]].built_by == "Ada"
    assert client.activate(before, curator="Ada").bundle_id == before
    assert client.cancel_job(job.job_id).state == "succeeded"
