"""`VoucherClient`: everything that the service can do, as methods."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx2
from pydantic import ValidationError

from indexer.client.answers import (
    AddedSheet,
    AddedSheets,
    Answer,
    Batch,
    BatchResult,
    Bundle,
    BundleList,
    Embeddings,
    Explanations,
    Identification,
    Job,
    JobList,
    Readiness,
    Sheet,
    SheetPage,
    Species,
    SpeciesPage,
)
from indexer.client.forms import Photo, filter_fields, form, names_of, segment
from indexer.client.problems import ServiceError
from indexer.client.transport import Body, Retries, Transport
from indexer.client.waiting import wait_for
from models.errors import InvalidConfig

Kind = TypeVar("Kind", bound=Answer)

_PAGE = 200


class VoucherClient:
    """A service at an address, asked with a key where it wants one. Threads may share it; close it in the end.

    Requests are sent again when the service is busy or cannot be reached, if that does no harm. All methods raise
    `ServiceError` (its subclasses tell the kinds apart) and `ServiceUnreachable`.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeout_seconds: float = 120.0,
        retries: Retries | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        address = urlsplit(base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise InvalidConfig(f"expected the address of a service, such as http://127.0.0.1:8000, found {base_url!r}")
        headers = {"Accept": "application/json", "User-Agent": "voucher-client"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        # Redirects are not followed: they would carry photos and key to wherever they lead.
        self._http = httpx2.Client(
            base_url=base_url.rstrip("/"), headers=headers, timeout=timeout_seconds, transport=transport
        )
        self._transport = Transport(self._http, retries or Retries())

    def close(self) -> None:
        """Release the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def identify(
        self,
        photos: Photo | Sequence[Photo],
        *,
        organs: Sequence[str] = (),
        top_k: int = 5,
        sheets_per_candidate: int = 3,
        species_ids: Iterable[str] = (),
        genera: Iterable[str] = (),
        families: Iterable[str] = (),
        ignore_unlisted: bool = False,
        explain: bool = False,
    ) -> Identification:
        """The answer for one to five photos of one plant.

        With `ignore_unlisted`, entries of a checklist that the index does not hold are left out, not refused.
        """
        fields: dict[str, Any] = {
            "organs": list(organs),
            "top_k": str(top_k),
            "sheets_per_candidate": str(sheets_per_candidate),
            **filter_fields(species_ids, genera, families, ignore_unlisted),
        }
        if explain:
            fields["explain"] = "true"
        body = form("photos", _several(photos), fields)
        return self._post(Identification, "/v1/identifications", body, repeatable=True)

    def explain(self, photos: Photo | Sequence[Photo], sheet_ids: Sequence[str]) -> Explanations:
        """Heat maps over sheets of the index and over the photo that is most like each; `fetch` gets their pictures."""
        body = form("photos", _several(photos), {"sheet_ids": ",".join(sheet_ids)})
        return self._post(Explanations, "/v1/explanations", body, repeatable=True)

    def embeddings(self, images: Sequence[Photo], *, role: str | None = None) -> Embeddings:
        """A unit vector for each image; with a role (field, sheet) in the metric of the bundle."""
        body = form("photos", images, {} if role is None else {"role": role})
        return self._post(Embeddings, "/v1/embeddings", body, repeatable=True)

    def species(self, search: str = "") -> Iterator[Species]:
        """All species that have every word of `search` in name, genus, family or id, by scientific name."""
        offset = 0
        while True:
            page = self._get(SpeciesPage, "/v1/species", q=search, limit=_PAGE, offset=offset)
            yield from page.species
            offset += len(page.species)
            if not page.species or offset >= page.total:
                return

    def get_species(self, species_id: str) -> Species:
        """One species with its counts."""
        return self._get(Species, f"/v1/species/{quote(species_id)}")

    def sheets(self, species_id: str, *, removed: bool = False) -> Iterator[Sheet]:
        """The sheets of a species, or those that were removed and can be restored."""
        offset = 0
        while True:
            query = {"species_id": species_id, "removed": removed, "limit": _PAGE, "offset": offset}
            page = self._get(SheetPage, "/v1/sheets", **query)
            yield from page.sheets
            offset += len(page.sheets)
            if not page.sheets or offset >= page.total:
                return

    def get_sheet(self, sheet_id: str) -> Sheet:
        """One sheet."""
        return self._get(Sheet, f"/v1/sheets/{segment(sheet_id)}")

    def add_sheets(self, images: Sequence[Photo], **details: str | None) -> tuple[AddedSheet, ...]:
        """Add images of sheets, all or none; `details` are the fields of the form, such as `species_id`.

        The same image is one sheet however often it is sent.
        """
        fields = {name: value for name, value in details.items() if value is not None}
        # Whether a new species was entered before an answer was lost cannot be told from here.
        repeatable = "scientific_name" not in fields
        return self._post(AddedSheets, "/v1/sheets", form("images", images, fields), repeatable=repeatable).sheets

    def remove_sheet(self, sheet_id: str, *, curator: str | None = None) -> Sheet:
        """Take a sheet out of the collection."""
        query = {} if curator is None else {"curator": curator}
        address = f"/v1/sheets/{segment(sheet_id)}"
        return self._read(Sheet, self._transport.request("DELETE", address, repeatable=True, query=query))

    def submit_batch(
        self,
        photos: Sequence[Path | str] = (),
        *,
        archive: Path | str | None = None,
        folders_are_plants: bool = False,
        top_k: int = 5,
        sheets_per_candidate: int = 0,
        species_ids: Iterable[str] = (),
        genera: Iterable[str] = (),
        families: Iterable[str] = (),
        ignore_unlisted: bool = False,
    ) -> Batch:
        """Have many photos identified, or a ZIP of them; `wait_for_batch` and `batch_results` follow."""
        if bool(photos) == (archive is not None):
            raise InvalidConfig("a batch is either photos or an archive")
        fields: dict[str, Any] = {
            "folders_are_plants": "true" if folders_are_plants else "false",
            "top_k": str(top_k),
            "sheets_per_candidate": str(sheets_per_candidate),
            **filter_fields(species_ids, genera, families, ignore_unlisted),
        }
        if archive is not None:
            body = form("archive", [archive], fields, names=names_of([archive]))
        else:
            body = form("photos", photos, fields, names=names_of(photos))
        return self._post(Batch, "/v1/batches", body, repeatable=False)

    def get_batch(self, batch_id: str) -> Batch:
        """How far a batch is."""
        return self._get(Batch, f"/v1/batches/{segment(batch_id)}")

    def wait_for_batch(
        self,
        batch_id: str,
        *,
        timeout_seconds: float | None = None,
        poll_seconds: float = 1.0,
        report: Callable[[Batch], None] = lambda batch: None,
    ) -> Batch:
        """The batch once nothing more will happen. Raises `TimeoutError`."""
        return wait_for(lambda: self.get_batch(batch_id), timeout_seconds, poll_seconds, report)

    def batch_results(self, batch_id: str, *, partial: bool = False) -> Iterator[BatchResult]:
        """The rows of a batch as they come; with `partial` those so far, of one that is not done."""
        query = {"format": "jsonl", "partial": partial}
        with self._transport.lines(f"/v1/batches/{segment(batch_id)}/results", query=query) as lines:
            for line in lines:
                yield _checked(BatchResult, json.loads(line))

    def delete_batch(self, batch_id: str) -> None:
        """Stop a batch if it is not done, and delete its photos and results."""
        self._transport.request("DELETE", f"/v1/batches/{segment(batch_id)}", repeatable=True)

    def start_build(
        self,
        *,
        model_id: str | None = None,
        activate: bool = True,
        from_nothing: bool = False,
        curator: str | None = None,
    ) -> Job:
        """Ask for a new index."""
        asked = {"model_id": model_id, "activate": activate, "from_nothing": from_nothing, "curator": curator}
        return self._post(Job, "/v1/index-builds", lambda _: {"json": asked}, repeatable=False)

    def jobs(self, *, limit: int = 50) -> tuple[Job, ...]:
        """The latest index builds first."""
        return self._get(JobList, "/v1/jobs", limit=limit).jobs

    def get_job(self, job_id: str) -> Job:
        """How far a job is."""
        return self._get(Job, f"/v1/jobs/{segment(job_id)}")

    def cancel_job(self, job_id: str) -> Job:
        """Not begin a job, or stop it at its next step."""
        return self._post(Job, f"/v1/jobs/{segment(job_id)}/cancel", None, repeatable=True)

    def wait_for_job(
        self,
        job_id: str,
        *,
        timeout_seconds: float | None = None,
        poll_seconds: float = 1.0,
        report: Callable[[Job], None] = lambda job: None,
    ) -> Job:
        """The job once nothing more will happen. Raises `TimeoutError`."""
        return wait_for(lambda: self.get_job(job_id), timeout_seconds, poll_seconds, report)

    def bundles(self) -> tuple[Bundle, ...]:
        """The versions of the index, the latest first."""
        return self._get(BundleList, "/v1/bundles").bundles

    def activate(self, bundle_id: str, *, curator: str | None = None) -> Bundle:
        """Have a version of the index served."""
        address = f"/v1/bundles/{segment(bundle_id)}/activate"
        return self._post(Bundle, address, lambda _: {"json": {"curator": curator}}, repeatable=True)

    def readiness(self) -> Readiness:
        """What the service identifies plants with. Raises `ServiceUnavailable` when it cannot."""
        return self._get(Readiness, "/readyz")

    def fetch(self, url: str) -> bytes:
        """What is at an address that an answer has named, such as `thumbnail_url`."""
        if not url.startswith("/") or url.startswith("//"):
            raise InvalidConfig(f"expected an address of this service, beginning with /, found {url!r}")
        return self._transport.request("GET", url, repeatable=True, headers={"Accept": "*/*"}).content

    def _get(self, kind: type[Kind], path: str, **query: Any) -> Kind:
        return self._read(kind, self._transport.request("GET", path, repeatable=True, query=query))

    def _post(self, kind: type[Kind], path: str, body: Body | None, *, repeatable: bool) -> Kind:
        return self._read(kind, self._transport.request("POST", path, repeatable=repeatable, body=body))

    def _read(self, kind: type[Kind], response: httpx2.Response) -> Kind:
        try:
            return _checked(kind, response.json())
        except ValueError as error:
            raise ServiceError(
                response.status_code,
                "",
                "No voucher",
                "the answer is not JSON; is there another service at this address?",
            ) from error


def _checked(kind: type[Kind], values: Any) -> Kind:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise ServiceError(
            200,
            "",
            "An answer of another version",
            f"{where}: {fault['msg']}; client and service do not fit each other",
        ) from error


def _several(photos: Photo | Sequence[Photo]) -> Sequence[Photo]:
    return [photos] if isinstance(photos, str | bytes | Path) else photos
