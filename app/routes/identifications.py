"""`POST /v1/identifications`: photos of one plant in, candidates and their sheets out."""

import logging
import time
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from starlette.background import BackgroundTask

from app.dependencies import IdentifyDependency
from app.desk import AtDesk
from app.error_responses import request_id_of
from app.explanations import Asked
from app.hang_up import client_gone
from app.identification_form import FORM_SCHEMA, IdentificationOptions, form_shape, read_options
from app.passage import Looked
from app.routes.documented_errors import problems
from app.routes.sheets import image_url, thumbnail_url
from app.schemas.identification import (
    CandidateBody,
    DecisionBody,
    ExplanationBody,
    IdentificationBody,
    IgnoredBody,
    PredictionSetBody,
    RollUpBody,
    SheetEvidence,
    SpeciesName,
    UnknownBody,
)
from app.serving import OpenCatalogue
from app.uploads import give_files, read_upload
from models.answer_values import software
from models.candidate_filter import CandidateFilter
from models.errors import CatalogueError, StorageFull
from models.identifier import Identifier
from models.retrieval import Candidate, Identification, Novelty, PredictionSet, RollUp, SheetMatch
from models.specimens import Specimen

logger = logging.getLogger(__name__)

router = APIRouter(tags=["identifications"])


REQUEST_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM_SCHEMA}}}
}


@dataclass(frozen=True, slots=True)
class _Answered:
    """An answer, what it was made from, and the specimens of the sheets that it cites."""

    looked: Looked
    identification: Identification
    specimens: dict[str, Specimen] | None
    ignored: IgnoredBody | None


@router.post(
    "/v1/identifications",
    summary="Identify one plant from 1–5 photos of it",
    response_model=IdentificationBody,
    responses=problems(400, 408, 413, 415, 422, 503),
    openapi_extra=REQUEST_BODY,
)
async def create_identification(access: IdentifyDependency, desk: AtDesk) -> Response:
    """Candidates by falling probability, who decided and why, and the sheets that vouch for each candidate.

    Photos are JPEG, PNG, WebP or TIFF. They are held in memory for the answer and not stored, unless the operator of
    the service has set that; what they tell of place and camera is not read. With `explain` the best sheet of the first
    candidates comes with heat maps over the photo and the sheet that show what makes them alike.
    """
    request, settings, serving = desk.request, desk.settings, desk.serving
    # Asked for once: this request ends with the bundle that it began with, whatever is activated meanwhile.
    identifier, collection = serving.identifier, serving.collection
    serving.queue.refuse_when_full()
    shape = form_shape(max_photos=settings.max_photos, max_photo_bytes=settings.max_upload_bytes)

    async def gone() -> None:
        await client_gone(request)

    with desk.budget.share() as share:
        form = await read_upload(request.headers, request.receive, shape, share)
        options = read_options(form.texts, photo_count=len(form.files))
        if options.within is not None:
            # Before the network works for it.
            await run_in_threadpool(options.within.positions, identifier.species)
        started = time.perf_counter()
        with serving.queue.place():
            found = await serving.queue.ask(
                identifier,
                form.files,
                lambda looked: _answered(identifier, collection, looked, options),
                client_gone=gone,
                has_place=True,
            )
            identification = found.identification
            if desk.kept_photos is not None:
                desk.kept_photos.keep(form.files, identification, request_id_of(request))
            give_files(share, form)
            asked = Asked(serving, identifier, found.looked, client_gone=gone)
            explained = await desk.explainer.explain(asked, identification, candidates=options.explained_candidates)
    candidates = [_candidate(candidate, found.specimens, explained) for candidate in identification.candidates]
    milliseconds = 1000 * (time.perf_counter() - started)
    body = _body(identification, identifier.model_id, candidates, found.ignored, request_id_of(request), milliseconds)

    async def note() -> None:
        desk.metrics.identified(identification)
        _log(body)

    # Written here: it is of the declared model, and would be checked against it once more. Who waits for it need not
    # wait until it is noted.
    return Response(body.model_dump_json(), media_type="application/json", background=BackgroundTask(note))


def _answered(
    identifier: Identifier, collection: OpenCatalogue, looked: Looked, options: IdentificationOptions
) -> _Answered:
    identification = identifier.answer(
        looked.encoded,
        top_k=options.top_k,
        sheets_per_candidate=options.sheets_per_candidate,
        within=options.within,
    )
    return _Answered(
        looked, identification, _specimens(collection, identification), _ignored(options.within, identifier)
    )


def _body(
    identification: Identification,
    model_id: str,
    candidates: list[CandidateBody],
    ignored: IgnoredBody | None,
    request_id: str,
    milliseconds: float,
) -> IdentificationBody:
    decision = identification.decision
    return IdentificationBody(
        identification_id=request_id,
        bundle_id=identification.bundle_id,
        model_id=model_id,
        software=software(),
        photo_count=identification.photo_count,
        outcome=identification.outcome.value,
        summary=identification.summary,
        calibrated=identification.calibrated,
        roll_up=_roll_up(identification.roll_up),
        unknown=_unknown(identification.novelty),
        prediction_set=_prediction_set(identification.prediction_set),
        probability_outside=identification.probability_outside,
        ignored=ignored,
        decision=DecisionBody(source=decision.source.value, reason=decision.reason, evidence=dict(decision.evidence)),
        candidates=candidates,
        milliseconds=round(milliseconds, 1),
    )


def _ignored(within: CandidateFilter | None, identifier: Identifier) -> IgnoredBody | None:
    found = None if within is None else within.passed_over(identifier.species)
    return None if found is None else IgnoredBody(**found)


def _roll_up(found: RollUp | None) -> RollUpBody | None:
    if found is None:
        return None
    return RollUpBody(
        taxon_rank=found.taxon_rank.value,
        name=found.name,
        probability=found.probability,
        species_count=found.species_count,
    )


def _unknown(novelty: Novelty | None) -> UnknownBody | None:
    if novelty is None:
        return None
    return UnknownBody(score=novelty.unknown_score, threshold=novelty.threshold, is_unknown=novelty.is_unknown)


def _prediction_set(found: PredictionSet | None) -> PredictionSetBody | None:
    if found is None:
        return None
    return PredictionSetBody(
        coverage=found.coverage,
        size=found.size,
        species=[SpeciesName(species_id=s.species_id, scientific_name=s.scientific_name) for s in found.species],
        herbarium_only=found.herbarium_only,
        guarantee=found.guarantee,
    )


def _specimens(collection: OpenCatalogue, identification: Identification) -> dict[str, Specimen] | None:
    """The specimens of the sheets that are cited, by the sheets' ids; None when the catalogue cannot be read.

    Sheets that are gone are not among them. A full or read-only disk, or a database that is down, is no reason to name
    no plant.
    """
    cited = [match.sheet_id for candidate in identification.candidates for match in candidate.sheets]
    if not cited:
        return {}
    try:
        found = collection.cited_specimens(cited)
    except (CatalogueError, StorageFull) as error:
        logger.warning("sheets are cited by their ids alone: %s", error)
        return None
    for sheet_id in cited:
        if sheet_id not in found:
            logger.warning("sheet %s is in the index but no longer in the catalogue", sheet_id)
    return found


def _candidate(
    candidate: Candidate, specimens: dict[str, Specimen] | None, explained: dict[str, ExplanationBody]
) -> CandidateBody:
    species = candidate.species
    return CandidateBody(
        species_id=species.species_id,
        scientific_name=species.scientific_name,
        genus=species.genus,
        family=species.family,
        probability=candidate.probability,
        similarity=candidate.similarity,
        has_field_photos=candidate.has_field_photos,
        in_classifier=candidate.in_classifier,
        sheets=[sheet for match in candidate.sheets for sheet in _evidence(match, specimens, explained)],
    )


def _evidence(
    match: SheetMatch, specimens: dict[str, Specimen] | None, explained: dict[str, ExplanationBody]
) -> list[SheetEvidence]:
    """The sheet of `match`; none when it left the catalogue after the index was built."""
    specimen = Specimen() if specimens is None else specimens.get(match.sheet_id)
    if specimen is None:
        return []
    evidence = SheetEvidence(
        sheet_id=match.sheet_id,
        similarity=match.similarity,
        institution_code=specimen.institution_code,
        collection_code=specimen.collection_code,
        catalog_number=specimen.catalog_number,
        image_url=image_url(match.sheet_id),
        thumbnail_url=thumbnail_url(match.sheet_id),
        explanation=explained.get(match.sheet_id),
    )
    return [evidence]


def _log(body: IdentificationBody) -> None:
    top_similarity = body.candidates[0].similarity if body.candidates else None
    logger.info(
        "identification request_id=%s photos=%d outcome=%s source=%s top_similarity=%s milliseconds=%.0f",
        body.identification_id,
        body.photo_count,
        body.outcome,
        body.decision.source,
        "none" if top_similarity is None else f"{top_similarity:.3f}",
        body.milliseconds,
    )
