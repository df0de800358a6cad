"""Each row of the table in docs/plantnet.md is a test, and each test a row."""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from models.api_keys import NewKey, Scope
from models.api_keys_store import KeyStore
from models.catalogue import Catalogue
from models.home import Home
from models.retrieval import Novelty

PAGE = Path(__file__).resolve().parents[2] / "docs" / "plantnet.md"

IDENTIFY = "/v2/identify/all"
QUOTA = 500
UNLIMITED = 2_147_483_647


@dataclass(frozen=True)
class Row:
    where: str
    field: str
    here: str

    def __str__(self) -> str:
        return f"{self.where} {self.field}"


def read_rows() -> list[Row]:
    table = re.search(r"^\| Where \|.*?\n\|[-|]+\n(.*?)\n(?:\n|\Z)", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.M)
    assert table
    rows = []
    for line in table[1].strip().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        assert len(cells) == 4, line
        rows.append(Row(*cells[:3]))
    return rows


class Contract:
    """Two services of one home: an open one, and one that takes keys; and their answers, asked for once."""

    def __init__(self, home: Home, gated_home: Home) -> None:
        self.home = home
        self._opened: list[TestClient] = []
        self._answers: dict[str, Any] = {}
        with Catalogue.open(home) as catalogue:
            stored = [catalogue.image_store.path(photo.image).read_bytes() for photo in catalogue.field_photos()]
            self.species = catalogue.species()
        self.open = self.service(home=home.root)
        self.photos = self._known_together(stored)
        with KeyStore.open(gated_home, create=True) as store:
            self.key_id, self.key = _made(store, NewKey("app", daily_quota=QUOTA, per_minute=60))
            _, self.spent_key = _made(store, NewKey("spent", daily_quota=1))
            _, self.other_key = _made(store, NewKey("curator", frozenset({Scope.CURATE})))
            _, self.free_key = _made(store, NewKey("free"))
        self.gated = self.service(home=gated_home.root)

    def _known_together(self, photos: list[bytes]) -> list[bytes]:
        """Two photos that this network does not take for plants of other species, neither alone nor together."""
        for first in photos:
            self.photos = [first, first]
            if self.post().status_code == 200:
                for second in photos:
                    self.photos = [first, second]
                    if second != first and self.post(2).status_code == self.post(5).status_code == 200:
                        return self.photos
        raise AssertionError("the network rejects all photos")

    def service(self, **given: Any) -> TestClient:
        settings = Settings(**({"device": "cpu", "home": self.home.root} | given))
        client = TestClient(create_app(settings), raise_server_exceptions=False)
        client.__enter__()
        self._opened.append(client)
        return client

    def close(self) -> None:
        for client in self._opened:
            client.__exit__(None, None, None)

    def post(
        self, count: int = 1, *, at: TestClient | None = None, organs: list[str] | None = None, **query: Any
    ) -> Any:
        files = [("images", (f"photo{n}.jpg", self.photos[n % 2], "image/jpeg")) for n in range(count)]
        data = {} if organs is None else {"organs": organs}
        parameters = {name.replace("_", "-"): value for name, value in query.items()}
        return (at or self.open).post(IDENTIFY, files=files, data=data, params=parameters)

    def answer(self) -> Any:
        """With everything that can be asked for."""
        return self._once(
            "answer",
            lambda: self.post(
                2,
                organs=["flower", "leaf"],
                include_related_images="true",
                no_reject="true",
                nb_results=4,
                lang="fr",
                type="kt",
                detailed="true",
            ),
        )

    def plain_answer(self) -> Any:
        """With nothing that need not be asked for."""
        return self._once("plain", self.post)

    def keyed_answer(self) -> Any:
        return self._once("keyed", lambda: self.post(at=self.gated, api_key=self.key))

    def get(self, path: str, *, key: str | None = None) -> Any:
        """What is at a path, of the open service or, with a key, of the other."""
        parameters = None if key is None else {"api-key": key}
        return self._once(f"{path} {key}", lambda: (self.gated if key else self.open).get(path, params=parameters))

    def _once(self, name: str, ask: Callable[[], Any]) -> Any:
        if name not in self._answers:
            response = ask()
            assert response.status_code == 200, response.text
            self._answers[name] = response.json()
        return self._answers[name]


def _made(store: KeyStore, wanted: NewKey) -> tuple[str, str]:
    key, text = store.create(wanted)
    return key.key_id, text


@pytest.fixture(scope="module")
def contract(trained_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contract]:
    gated = tmp_path_factory.mktemp("gated") / "home"
    shutil.copytree(trained_home.root, gated)
    made = Contract(trained_home, Home(gated))
    yield made
    made.close()


CHECKS: dict[tuple[str, str], tuple[str, Callable[[Contract], None]]] = {}

Check = Callable[[Contract], None]


def row(where: str, field: str, here: str) -> Callable[[Check], Check]:
    def note(check: Check) -> Check:
        assert (where, field) not in CHECKS
        CHECKS[where, field] = (here, check)
        return check

    return note


def test_every_row_is_checked_and_every_check_is_a_row() -> None:
    rows = read_rows()
    assert len(rows) == len(set(rows)) > 100
    assert {(each.where, each.field): each.here for each in rows} == {name: here for name, (here, _) in CHECKS.items()}


@pytest.mark.parametrize("each", read_rows(), ids=str)
def test_the_row_holds(contract: Contract, each: Row) -> None:
    here, check = CHECKS[each.where, each.field]
    assert here == each.here
    check(contract)


# Where values are


def values(body: Any, path: str) -> list[Any]:
    """Everything at a path such as ``results[].score``; none where a part of it is missing."""
    found = [body]
    for step in re.findall(r"\[\]|[^.\[\]]+", path):
        if step == "[]":
            found = [element for each in found for element in each]
        else:
            found = [each[step] for each in found if isinstance(each, dict) and step in each]
    return found


def has(where: str, field: str, here: str, ask: Callable[[Contract], Any], is_right: Callable[[Any], bool]) -> None:
    """A row whose values are there, and right, in what `ask` gives."""

    def check(contract: Contract) -> None:
        found = values(ask(contract), field.strip("`"))
        assert found
        assert all(is_right(value) for value in found), found

    row(where, field, here)(check)


def lacks(where: str, field: str, ask: Callable[[Contract], Any]) -> None:
    """A row whose values are nowhere."""

    def check(contract: Contract) -> None:
        assert values(ask(contract), field.strip("`")) == []

    row(where, field, "absent")(check)


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_filled(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def is_share(value: Any) -> bool:
    return isinstance(value, float) and 0 <= value <= 1 and round(value, 5) == value


def is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


def is_taxon(value: Any) -> bool:
    keys = {"scientificNameWithoutAuthor", "scientificNameAuthorship", "scientificName"}
    return set(value) == keys and all(map(is_text, value.values())) and is_filled(value["scientificName"])


# Routes

ROUTES = {
    "`GET /v2/_status`": "/v2/_status",
    "`GET /v2/languages`": "/v2/languages",
    "`GET /v2/projects`": "/v2/projects",
    "`GET /v2/projects/{project}/species`": "/v2/projects/all/species",
    "`GET /v2/species`": "/v2/species",
    "`GET /v2/quota/daily`": "/v2/quota/daily",
    "`GET /v2/quota/history`": "/v2/quota/history",
}
ABSENT_ROUTES = {
    "`GET /v2/projects/{project}/species/align`": ["/v2/projects/all/species/align?name=Rosa"],
    "`GET /v2/quota`": ["/v2/quota"],
    "`GET /v2/subscription`": ["/v2/subscription"],
    "`/v2/diseases`, `/v2/varieties`, `/v2/survey`, `/v2/embeddings`, `/v2/dwc`, `/v2/staplus`, `/v2/ai-taxonomist`": [
        "/v2/diseases/identify",
        "/v2/varieties/identify",
        "/v2/survey/tiles/all",
        "/v2/embeddings",
        "/v2/dwc/occurrence/search",
        "/v2/staplus/Things",
        "/v2/ai-taxonomist/anura/identify",
    ],
}


def _route(name: str, path: str) -> None:
    @row("routes", name, "same")
    def check(contract: Contract) -> None:
        assert contract.open.get(path).status_code == 200
        described = name.strip("`").removeprefix("GET ")
        assert "get" in contract.open.get("/openapi.json").json()["paths"][described]


def _absent_route(name: str, paths: list[str]) -> None:
    @row("routes", name, "absent")
    def check(contract: Contract) -> None:
        for path in paths:
            response = contract.open.get(path)
            assert response.status_code == 404, path
            assert response.json()["error"] == "Not Found"


for _name, _path in ROUTES.items():
    _route(_name, _path)
for _name, _paths in ABSENT_ROUTES.items():
    _absent_route(_name, _paths)


@row("routes", "`POST /v2/identify/{project}`", "same")
def _(contract: Contract) -> None:
    assert contract.answer()["results"]


@row("routes", "`GET /v2/identify/{project}`", "differs")
def _(contract: Contract) -> None:
    response = contract.open.get(IDENTIFY, params={"images": "https://images.example.org/a.jpg"})
    assert response.status_code == 400
    assert "POST" in response.json()["message"]


# What is asked of an identification


@row("identify: path", "`project`", "differs")
def _(contract: Contract) -> None:
    service = contract.service(plantnet_projects=("weurope",))
    photo = [("images", ("a.jpg", contract.photos[0], "image/jpeg"))]
    for project, status in (("all", 200), ("k-world-flora", 200), ("collection", 200), ("weurope", 200), ("nope", 404)):
        response = service.post(f"/v2/identify/{project}", files=photo)
        assert response.status_code == status, project
        if status == 200:
            assert response.json()["query"]["project"] == project
    assert contract.open.post("/v2/identify/weurope", files=photo).status_code == 404


@row("identify: query", "`include-related-images`", "same")
def _(contract: Contract) -> None:
    assert all(result["images"] for result in contract.answer()["results"])
    assert not any(result["images"] for result in contract.plain_answer()["results"])
    assert contract.post(include_related_images="perhaps").status_code == 400


@row("identify: query", "`no-reject`", "same")
def _(contract: Contract) -> None:
    with unknown_plant(contract):
        assert contract.post().status_code == 404
        assert contract.post(no_reject="false").status_code == 404
        for truth in ("true", "True"):
            assert contract.post(no_reject=truth).json()["query"]["noReject"] is True


@row("identify: query", "`nb-results`", "differs")
def _(contract: Contract) -> None:
    assert len(contract.answer()["results"]) == 4
    assert len(contract.plain_answer()["results"]) == min(10, len(contract.species))
    assert len(contract.post(nb_results=1_000_000).json()["results"]) == len(contract.species)
    assert contract.post(nb_results=0).status_code == 400


@row("identify: query", "`lang`", "differs")
def _(contract: Contract) -> None:
    assert contract.answer()["language"] == "fr"
    same = contract.answer()["results"][0]["species"]["scientificName"]
    for language in contract.open.get("/v2/languages").json():
        assert contract.open.get("/v2/species", params={"lang": language}).status_code == 200
    assert contract.post(2, lang="de").json()["results"][0]["species"]["scientificName"] == same
    assert contract.post(lang="tlh").status_code == 400


@row("identify: query", "`type`", "differs")
def _(contract: Contract) -> None:
    found = [contract.post(**given).json()["results"] for given in ({}, {"type": "kt"}, {"type": "legacy"})]
    assert found[0] == found[1] == found[2]
    assert contract.post(type="old").status_code == 400


@row("identify: query", "`detailed`", "same")
def _(contract: Contract) -> None:
    assert "otherResults" in contract.answer()
    assert "otherResults" not in contract.plain_answer()


@row("identify: query", "`api-key`", "same")
def _(contract: Contract) -> None:
    assert contract.post(at=contract.gated).status_code == 401
    assert contract.post(at=contract.gated, api_key=contract.key).status_code == 200
    assert contract.post(at=contract.open, api_key="whatever").status_code == 200
    headers = {"authorization": f"Bearer {contract.key}"}
    assert contract.gated.get("/v2/projects", headers=headers).status_code == 200


@row("identify: query", "`authenix-access-token`", "absent")
def _(contract: Contract) -> None:
    assert contract.post(authenix_access_token="x", no_such_parameter="y").status_code == 200
    assert contract.post(at=contract.gated, authenix_access_token=contract.key).status_code == 401


@row("identify: query (GET)", "`images`", "differs")
def _(contract: Contract) -> None:
    service = contract.service(remote_image_hosts="images.example.org")
    fetched: list[str] = []

    async def fetch(addresses: list[str], share: object) -> list[bytes]:
        fetched.extend(addresses)
        return contract.photos[: len(addresses)]

    elsewhere = service.get(IDENTIFY, params={"images": "https://evil.example/a.jpg"})
    assert (elsewhere.status_code, elsewhere.json()["error"]) == (400, "Bad Request")
    assert elsewhere.json()["message"].startswith("image 1: ")
    service.app.state.remote_images.fetch = fetch  # type: ignore[attr-defined]
    addresses = ["https://images.example.org/a.jpg?x=1&y=2", "https://images.example.org/b.jpg"]
    response = service.get(IDENTIFY, params={"images": addresses, "nb-results": 1})
    assert response.status_code == 200, response.text
    assert fetched == response.json()["query"]["images"] == addresses
    assert service.get(IDENTIFY).status_code == 400
    assert service.get(IDENTIFY, params={"images": ["https://images.example.org/a.jpg"] * 6}).status_code == 400


@row("identify: query (GET)", "`organs`", "same")
def _(contract: Contract) -> None:
    service = contract.service(remote_image_hosts="images.example.org")

    async def fetch(addresses: list[str], share: object) -> list[bytes]:
        return contract.photos

    service.app.state.remote_images.fetch = fetch  # type: ignore[attr-defined]
    images = ["https://images.example.org/a.jpg", "https://images.example.org/b.jpg"]
    answered = {"leaf flower": ["leaf", "flower"], "": ["auto", "auto"]}
    for organs, expected in answered.items():
        response = service.get(IDENTIFY, params={"images": images, "organs": organs.split()})
        assert response.json()["query"]["organs"] == expected
    for wrong in (["leaf"], ["leaf", "root"], ["leaf"] * 3):
        assert service.get(IDENTIFY, params={"images": images, "organs": wrong}).status_code == 400


@row("identify: form (POST)", "`images`", "differs")
def _(contract: Contract) -> None:
    assert contract.post(5).status_code == 200
    assert contract.post(6).status_code == 400
    assert contract.open.post(IDENTIFY, data={"organs": "leaf"}, files={"x": b""}).status_code == 400
    small = contract.service(max_upload_bytes=len(contract.photos[0]) - 1)
    assert contract.post(at=small).status_code == 413
    for content in (b"RIFF\0\0\0\0WEBP", b"II*\0" + bytes(20), b"GIF89a", b"<svg/>"):
        assert contract.open.post(IDENTIFY, files={"images": ("a.jpg", content)}).status_code == 415


@row("identify: form (POST)", "`organs`", "differs")
def _(contract: Contract) -> None:
    results = []
    for organs in (None, ["leaf"], ["flower"], ["fruit"], ["bark"], ["auto"], ["habit"], ["other"]):
        response = contract.post(organs=organs)
        assert response.status_code == 200
        assert response.json()["query"]["organs"] == (organs or ["auto"])
        results.append(response.json()["results"])
    assert all(each == results[0] for each in results)
    for wrong in (["root"], ["leaf", "leaf"], ["leaf,flower"]):
        assert contract.post(organs=wrong).status_code == 400
    assert contract.post(2, organs=["leaf"]).status_code == 400


# What an identification answers

ANSWER: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "query.project": ("same", lambda value: value == "all"),
    "query.images[]": ("same", lambda value: re.fullmatch(r"[0-9a-f]{32}", value) is not None),
    "query.organs[]": ("same", lambda value: value in ("flower", "leaf")),
    "query.includeRelatedImages": ("same", lambda value: value is True),
    "query.noReject": ("same", lambda value: value is True),
    "query.type": ("same", lambda value: value == "kt"),
    "language": ("same", lambda value: value == "fr"),
    "preferedReferential": ("differs", lambda value: value == "collection"),
    "results[].score": ("differs", is_share),
    "results[].species.scientificNameWithoutAuthor": ("same", is_filled),
    "results[].species.scientificNameAuthorship": ("same", is_text),
    "results[].species.scientificName": ("same", is_filled),
    "results[].species.genus.scientificNameWithoutAuthor": ("same", is_filled),
    "results[].species.genus.scientificNameAuthorship": ("same", is_text),
    "results[].species.genus.scientificName": ("same", is_filled),
    "results[].species.family.scientificNameWithoutAuthor": ("same", is_filled),
    "results[].species.family.scientificNameAuthorship": ("same", is_text),
    "results[].species.family.scientificName": ("same", is_filled),
    "results[].images[].organ": ("differs", lambda value: value == "other"),
    "results[].images[].author": ("differs", is_text),
    "results[].images[].license": ("differs", is_text),
    "results[].images[].date.timestamp": (
        "differs",
        lambda value: datetime.fromtimestamp(value / 1000, UTC).year > 2024,
    ),
    "results[].images[].date.string": ("differs", lambda value: bool(re.fullmatch(r"[A-Z][a-z]+ \d+, \d{4}", value))),
    "results[].images[].citation": ("differs", is_filled),
    "version": ("differs", is_filled),
    "otherResults.genus[].score": ("same", is_share),
    "otherResults.genus[].genus": ("same", is_taxon),
    "otherResults.family[].score": ("same", is_share),
    "otherResults.family[].family": ("same", is_taxon),
}
for _path, (_here, _is_right) in ANSWER.items():
    has("identify: answer", f"`{_path}`", _here, Contract.answer, _is_right)

for _path in (
    "switchToProject",
    "results[].gbif.id",
    "results[].powo.id",
    "results[].iucn.id",
    "results[].iucn.category",
    "predictedOrgans[].image",
    "predictedOrgans[].filename",
    "predictedOrgans[].organ",
    "predictedOrgans[].score",
    "otherResults.genus[].gbif",
    "otherResults.family[].gbif",
):
    lacks("identify: answer", f"`{_path}`", Contract.answer)


def _url(letter: str, largest: int | None, here: str = "same") -> None:
    @row("identify: answer", f"`results[].images[].url.{letter}`", here)
    def check(contract: Contract) -> None:
        for address in values(contract.answer(), f"results[].images[].url.{letter}"):
            assert address.startswith("http://testserver/v1/sheets/")
            response = contract.open.get(address)
            assert response.headers["content-type"] == "image/jpeg"
            assert largest is None or address.endswith(f"size={largest}")


_url("o", None)
_url("m", 640)
_url("s", 160)


@row("identify: answer", "`bestMatch`", "same")
def _(contract: Contract) -> None:
    for answer in (contract.answer(), contract.plain_answer()):
        assert answer["bestMatch"] == answer["results"][0]["species"]["scientificName"]
        scores = values(answer, "results[].score")
        assert scores == sorted(scores, reverse=True)


@row("identify: answer", "`results[].species.commonNames[]`", "differs")
def _(contract: Contract) -> None:
    assert set(map(len, values(contract.answer(), "results[].species.commonNames"))) == {0}


@row("identify: answer", "`results[].images[]`", "differs")
def _(contract: Contract) -> None:
    for result in contract.answer()["results"]:
        with Catalogue.open(contract.home) as catalogue:
            for image in result["images"]:
                sheet = catalogue.get_sheet(image["url"]["o"].split("/")[-2])
                name = catalogue.get_species(sheet.species_id).scientific_name
                assert name == result["species"]["scientificName"]
                assert sheet.specimen.catalog_number in image["citation"]
    assert values(contract.plain_answer(), "results[].images") == [[]] * len(contract.plain_answer()["results"])


@row("identify: answer", "`remainingIdentificationRequests`", "same")
def _(contract: Contract) -> None:
    assert contract.answer()["remainingIdentificationRequests"] == UNLIMITED
    first, second = (
        contract.post(at=contract.gated, api_key=contract.key).json()["remainingIdentificationRequests"]
        for _ in range(2)
    )
    assert second == first - 1 < QUOTA


@row("identify: answer", "`predictedOrgans[]`", "differs")
def _(contract: Contract) -> None:
    assert contract.answer()["predictedOrgans"] == contract.plain_answer()["predictedOrgans"] == []


@row("identify: answer", "`otherResults`", "same")
def _(contract: Contract) -> None:
    other = contract.answer()["otherResults"]
    assert set(other) == {"genus", "family"}
    for taxa in other.values():
        scores = values(taxa, "[].score")
        assert scores == sorted(scores, reverse=True)
        assert len(taxa) <= 4
    complete = contract.post(detailed="true").json()["otherResults"]
    assert sum(values(complete, "genus[].score")) == pytest.approx(1, abs=1e-3)
    assert sum(values(complete, "family[].score")) == pytest.approx(1, abs=1e-3)


@row("identify: answer", "`otherResults.genus[].images[]`", "differs")
def _(contract: Contract) -> None:
    assert set(map(len, values(contract.answer(), "otherResults.genus[].images"))) == {0}


@row("identify: answer", "`otherResults.family[].images[]`", "differs")
def _(contract: Contract) -> None:
    assert set(map(len, values(contract.answer(), "otherResults.family[].images"))) == {0}


# Lists


@row("_status: answer", "`status`", "same")
def _(contract: Contract) -> None:
    assert contract.open.get("/v2/_status").json() == {"status": "ok"}
    assert contract.gated.get("/v2/_status").status_code == 200
    empty = contract.service(home=contract.home.root / "nothing")
    assert empty.get("/v2/_status").status_code == 503


@row("languages: answer", "`[]`", "same")
def _(contract: Contract) -> None:
    found = contract.get("/v2/languages")
    assert {"en", "fr", "zh-tw"} <= set(found)
    assert all(map(is_filled, found))


def _projects_row(field: str, right: dict[str, str], wrong: dict[str, str]) -> None:
    @row("projects: query", field, "differs")
    def check(contract: Contract) -> None:
        assert contract.open.get("/v2/projects", params=right).json() == contract.get("/v2/projects")
        for name, value in wrong.items():
            assert contract.open.get("/v2/projects", params={name: value}).status_code == 400


_projects_row("`lang`", {"lang": "pt-br"}, {"lang": "tlh"})
_projects_row("`lat`, `lon`", {"lat": "-12.5", "lon": "3"}, {"lat": "91", "lon": "-181"})
_projects_row("`type`", {"type": "legacy"}, {"type": "old"})
has("projects: answer", "`[].id`", "differs", lambda c: c.get("/v2/projects"), lambda value: value == "collection")
has("projects: answer", "`[].title`", "differs", lambda c: c.get("/v2/projects"), is_filled)
has("projects: answer", "`[].description`", "differs", lambda c: c.get("/v2/projects"), is_filled)
has("projects: answer", "`[].speciesCount`", "same", lambda c: c.get("/v2/projects"), lambda value: value == 6)


@row("species: query", "`lang`", "differs")
def _(contract: Contract) -> None:
    assert contract.open.get("/v2/species?lang=fr").json() == contract.get("/v2/species")
    assert contract.open.get("/v2/species?lang=tlh").status_code == 400


@row("species: query", "`type`", "differs")
def _(contract: Contract) -> None:
    assert contract.open.get("/v2/species?type=legacy").json() == contract.get("/v2/species")
    assert contract.open.get("/v2/species?type=old").status_code == 400


@row("species: query", "`pageSize`, `page`", "same")
def _(contract: Contract) -> None:
    everything = contract.get("/v2/species")
    pages = [contract.get(f"/v2/projects/all/species?pageSize=4&page={page}") for page in (1, 2, 3)]
    assert [len(page) for page in pages] == [4, 2, 0]
    assert [each for page in pages for each in page] == everything
    for half in ("pageSize=4", "page=2", "page=&pageSize="):
        assert contract.get(f"/v2/species?{half}") == everything
    for wrong in ("page=0&pageSize=4", "page=1&pageSize=0", "page=x&pageSize=4"):
        assert contract.open.get(f"/v2/species?{wrong}").status_code == 400


@row("species: query", "`prefix`", "same")
def _(contract: Contract) -> None:
    name = contract.get("/v2/species")[2]["scientificNameWithoutAuthor"]
    for prefix in (name, name.upper(), name[:9]):
        found = values(
            contract.open.get("/v2/species", params={"prefix": prefix}).json(), "[].scientificNameWithoutAuthor"
        )
        assert name in found
        assert all(each.lower().startswith(prefix.lower()) for each in found)
    assert contract.open.get("/v2/species?prefix=zzz").json() == []


@row("species: query", "`images`", "differs")
def _(contract: Contract) -> None:
    assert values(contract.get("/v2/species"), "[].images") == []
    found = contract.get("/v2/species?images=true&page=1&pageSize=2")
    assert all(1 <= len(each["images"]) <= 3 for each in found)


def _species(contract: Contract) -> Any:
    return contract.get("/v2/species")


has("species: answer", "`[].id`", "same", _species, is_filled)
has("species: answer", "`[].scientificNameWithoutAuthor`", "same", _species, is_filled)
has("species: answer", "`[].scientificNameAuthorship`", "same", _species, is_text)
has("species: answer", "`[].genus`", "same", _species, is_filled)
has("species: answer", "`[].family`", "same", _species, is_text)
for _path in ("[].gbifId", "[].powoId", "[].iucnCategory"):
    lacks("species: answer", f"`{_path}`", _species)


@row("species: answer", "`[].commonNames[]`", "differs")
def _(contract: Contract) -> None:
    assert values(contract.get("/v2/species"), "[].commonNames") == [[]] * len(contract.species)


@row("species: answer", "`[].images[]`", "differs")
def _(contract: Contract) -> None:
    [image, *_] = values(contract.get("/v2/species?images=true&page=1&pageSize=2"), "[].images[]")
    assert set(image) == {"organ", "author", "license", "date", "citation", "url"}
    assert set(image) == set(values(contract.answer(), "results[].images[]")[0])


# Quota


def _today() -> date:
    return datetime.now(UTC).date()


def _daily(contract: Contract) -> Any:
    """After one identification."""
    contract.keyed_answer()
    return contract.gated.get("/v2/quota/daily", params={"api-key": contract.key}).json()


@row("quota/daily: query", "`day`", "same")
def _(contract: Contract) -> None:
    used = _daily(contract)["quota"]["identify"]["count"]
    for day, count in ((_today(), used), (_today() - timedelta(days=1), 0), (date(2001, 1, 1), 0)):
        asked = {"api-key": contract.key, "day": day.isoformat()}
        found = contract.gated.get("/v2/quota/daily", params=asked).json()
        assert (found["day"], found["quota"]["identify"]["count"]) == (day.isoformat(), count)
    for wrong in ("today", "2026-13-01", "1700000000", "21-11-2026"):
        assert contract.gated.get("/v2/quota/daily", params=asked | {"day": wrong}).status_code == 400


@row("quota/daily: answer", "`quota.identify.count`", "same")
def _(contract: Contract) -> None:
    before = _daily(contract)["quota"]["identify"]["count"]
    contract.post(at=contract.gated, api_key=contract.key)
    assert _daily(contract)["quota"]["identify"]["count"] == before + 1
    assert contract.open.get("/v2/quota/daily").json()["quota"]["identify"]["count"] == 0
    contract.post(at=contract.gated, api_key=contract.free_key)
    unlimited = contract.gated.get("/v2/quota/daily", params={"api-key": contract.free_key}).json()
    assert unlimited["quota"]["identify"] == {"count": 1, "total": UNLIMITED, "remaining": UNLIMITED}


has("quota/daily: answer", "`day`", "same", _daily, lambda value: value == _today().isoformat())
has("quota/daily: answer", "`quota.identify.total`", "same", _daily, lambda value: value == QUOTA)
has("quota/daily: answer", "`count.identify`", "same", _daily, is_count)


@row("quota/daily: answer", "`quota.identify.remaining`", "same")
def _(contract: Contract) -> None:
    usage = _daily(contract)["quota"]["identify"]
    assert usage["remaining"] == QUOTA - usage["count"]


@row("quota/daily: answer", "`remaining.identify`", "same")
def _(contract: Contract) -> None:
    found = _daily(contract)
    assert found["remaining"]["identify"] == found["quota"]["identify"]["remaining"]
    assert found["count"]["identify"] == found["quota"]["identify"]["count"]


def _history(contract: Contract) -> Any:
    contract.keyed_answer()
    return contract.gated.get("/v2/quota/history", params={"api-key": contract.key}).json()


@row("quota/history: query", "`year`", "same")
def _(contract: Contract) -> None:
    history = _history(contract)
    for year, expected in ((str(_today().year), history), ("2001", [])):
        asked = {"api-key": contract.key, "year": year}
        assert contract.gated.get("/v2/quota/history", params=asked).json() == expected
    assert contract.gated.get("/v2/quota/history", params=asked | {"year": "26"}).status_code == 400
    assert contract.open.get("/v2/quota/history").json() == []


has("quota/history: answer", "`[].day`", "same", _history, lambda value: value == _today().isoformat())
has("quota/history: answer", "`[].quota.identify.count`", "same", _history, lambda value: value > 0)
has("quota/history: answer", "`[].count.identify`", "same", _history, lambda value: value > 0)
lacks("quota/history: answer", "`[].remaining.identify`", _history)


# Headers


@row("headers", "`RateLimit-Policy`", "same")
def _(contract: Contract) -> None:
    policy = contract.post(at=contract.gated, api_key=contract.key).headers["ratelimit-policy"]
    assert re.fullmatch(r'"dailyQuota";q=500;w=86400;pk=:[\w+/=]+:, "minute";q=60;w=60;pk=:[\w+/=]+:', policy)
    assert "ratelimit-policy" not in contract.post().headers


@row("headers", "`RateLimit`", "same")
def _(contract: Contract) -> None:
    response = contract.post(at=contract.gated, api_key=contract.key)
    told = re.match(r'"dailyQuota";r=(\d+);t=(\d+);pk=:[\w+/=]+:, "minute";r=', response.headers["ratelimit"])
    assert told
    assert int(told[1]) == response.json()["remainingIdentificationRequests"]
    assert 0 < int(told[2]) <= 86_400
    refused = contract.gated.post(IDENTIFY, params={"api-key": contract.key}, files={"images": b"GIF89a"})
    assert refused.status_code == 415
    assert f"r={told[1]};" in refused.headers["ratelimit"]  # what was charged in vain is given back


@row("headers", "`Access-Control-Allow-Origin`", "same")
def _(contract: Contract) -> None:
    origin = {"origin": "https://app.example"}
    for response in (
        contract.open.get("/v2/projects", headers=origin),
        contract.open.get("/v2/nothing", headers=origin),
        contract.gated.get("/v2/projects", headers=origin),
    ):
        assert response.headers["access-control-allow-origin"] == "*"
    preflight = contract.open.options(IDENTIFY, headers=origin | {"access-control-request-method": "POST"})
    assert preflight.status_code == 200


# Errors


class unknown_plant:  # noqa: N801 (reads as what it is)
    """While it lasts, every photo looks like no species of the index."""

    def __init__(self, contract: Contract) -> None:
        self._identifier = contract.open.app.state.serving.identifier  # type: ignore[attr-defined]

    def __enter__(self) -> None:
        answer = self._identifier.answer
        self._identifier.answer = lambda *given, **named: replace(answer(*given, **named), novelty=Novelty(0.9, 0.5))

    def __exit__(self, *_: object) -> None:
        del self._identifier.answer


def is_error(response: Any, status: int, name: str) -> bool:
    body = response.json()
    assert response.headers["content-type"].startswith("application/json")
    assert int(response.headers["content-length"]) == len(response.content)
    return (response.status_code, body["statusCode"], body["error"], set(body)) == (
        status,
        status,
        name,
        {"statusCode", "error", "message"},
    ) and is_filled(body["message"])


def _bad(contract: Contract) -> Any:
    return contract.post(nb_results="many")


@row("errors", "`statusCode`", "same")
def _(contract: Contract) -> None:
    assert _bad(contract).json()["statusCode"] == 400


@row("errors", "`error`", "same")
def _(contract: Contract) -> None:
    assert _bad(contract).json()["error"] == "Bad Request"


@row("errors", "`message`", "same")
def _(contract: Contract) -> None:
    assert "nb-results" in _bad(contract).json()["message"]


@row("errors", "400", "same")
def _(contract: Contract) -> None:
    assert is_error(_bad(contract), 400, "Bad Request")
    truncated = contract.photos[0][: len(contract.photos[0]) // 2]
    for content in (truncated, b""):
        assert is_error(contract.open.post(IDENTIFY, files={"images": ("a", content)}), 400, "Bad Request")
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert is_error(contract.open.post(IDENTIFY, content=b"--b\r\n", headers=headers), 400, "Bad Request")


@row("errors", "401", "same")
def _(contract: Contract) -> None:
    for key in ({}, {"api_key": "wrong"}, {"api_key": contract.key[:-1] + "!"}):
        assert is_error(contract.post(at=contract.gated, **key), 401, "Unauthorized")


@row("errors", "403", "differs")
def _(contract: Contract) -> None:
    assert is_error(contract.post(at=contract.gated, api_key=contract.other_key), 403, "Forbidden")


@row("errors", "404: no known plant", "same")
def _(contract: Contract) -> None:
    with unknown_plant(contract):
        response = contract.post()
    assert response.json() == {"statusCode": 404, "error": "Not Found", "message": "Species not found"}
    assert response.status_code == 404


@row("errors", "404: no such project", "same")
def _(contract: Contract) -> None:
    photo = {"images": ("a.jpg", contract.photos[0])}
    assert is_error(contract.open.post("/v2/identify/nope", files=photo), 404, "Not Found")
    assert is_error(contract.open.get("/v2/projects/nope/species"), 404, "Not Found")


@row("errors", "413", "same")
def _(contract: Contract) -> None:
    service = contract.service(max_request_bytes=1024, max_upload_bytes=1024)
    assert is_error(contract.post(at=service), 413, "Payload Too Large")


@row("errors", "414", "same")
def _(contract: Contract) -> None:
    assert is_error(contract.open.get("/v2/species", params={"prefix": "a" * 17_000}), 400, "Bad Request")
    assert is_error(contract.open.get("/v2/species", params={"x": "a" * 17_000}), 414, "URI Too Long")
    long = {"images": "https://images.example.org/" + "a" * 17_000}
    assert is_error(contract.open.get(IDENTIFY, params=long), 414, "URI Too Long")


@row("errors", "415", "same")
def _(contract: Contract) -> None:
    for response in (
        contract.open.post(IDENTIFY, json={"images": []}),
        contract.open.post(IDENTIFY, content=b"x"),
        contract.open.post(IDENTIFY, files={"images": ("a.jpg", b"%PDF-1.7", "image/jpeg")}),
    ):
        assert is_error(response, 415, "Unsupported Media Type")


@row("errors", "429", "same")
def _(contract: Contract) -> None:
    assert contract.post(at=contract.gated, api_key=contract.spent_key).status_code == 200
    response = contract.post(at=contract.gated, api_key=contract.spent_key)
    assert is_error(response, 429, "Too Many Requests")
    assert int(response.headers["retry-after"]) > 0
    assert "r=0;" in response.headers["ratelimit"]


@row("errors", "500", "same")
def _(contract: Contract) -> None:
    service = contract.service()

    def fail(*given: object, **named: object) -> None:
        raise ZeroDivisionError("a secret")

    service.app.state.serving.identifier.answer = fail  # type: ignore[attr-defined]
    response = contract.post(at=service)
    assert is_error(response, 500, "Internal Server Error")
    assert "secret" not in response.text


@row("errors", "503", "differs")
def _(contract: Contract) -> None:
    response = contract.post(at=contract.service(home=contract.home.root / "nothing"))
    assert is_error(response, 503, "Service Unavailable")
    assert int(response.headers["retry-after"]) > 0
