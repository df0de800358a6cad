"""`/v2/identify/{project}`: identification as clients of Pl@ntNet ask for it."""

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool

from app.access import Access
from app.dependencies import IdentifyDependency, RemoteImagesDependency
from app.desk import AtDesk, Desk
from app.error_responses import request_id_of
from app.hang_up import client_gone
from app.passage import Looked
from app.plantnet.answer import other_results_of, result_of
from app.plantnet.asked import (
    IdentifyQuery,
    IdentifyUrlsQuery,
    check_address_length,
    check_images,
    check_project,
    form_shape,
    organs_of,
    with_form,
)
from app.plantnet.documented import EXAMPLE, FORM, TAG, answered, errors
from app.plantnet.links import base_url_of
from app.plantnet.quota import remaining_of
from app.plantnet.wire import AnswerBody, OtherResultsBody, QueryBody
from app.refusals import NoKnownPlant
from app.serving import Serving
from app.uploads import read_upload
from models.errors import CatalogueError, StorageFull
from models.identifier import Identifier
from models.retrieval import Identification
from models.specimens import Sheet

logger = logging.getLogger(__name__)

router = APIRouter(tags=[TAG])

RELATED_IMAGES = 5
"""Of each result."""

ID_LETTERS = 32

NOT_FOUND = "Species not found"
"""Clients compare this message."""


@router.post(
    "/v2/identify/{project}",
    summary="Identify one plant from 1–5 images of it",
    response_model_exclude_unset=True,
    responses={**answered(EXAMPLE), **errors(404, 408, 413, 415)},
    openapi_extra=FORM,
)
async def identify_uploads(
    project: str, asked: Annotated[IdentifyQuery, Query()], access: IdentifyDependency, desk: AtDesk
) -> AnswerBody:
    """Species by falling probability; 404 for photos that show no known plant, unless `no-reject` is true.

    What images tell of place and camera is not read.
    """
    request, settings, serving = desk.request, desk.settings, desk.serving
    check_address_length(request.scope["query_string"])
    flora = check_project(project, settings)
    identifier = serving.identifier
    serving.queue.refuse_when_full()
    with desk.budget.share() as share:
        form = await read_upload(request.headers, request.receive, form_shape(settings), share)
        check_images(form.files)
        asked = with_form(asked, request.query_params, form.texts)
        organs = organs_of(asked.organs, len(form.files))
        found = await _identify(desk, identifier, form.files, asked)
    query = _query(project, asked, found.image_ids, organs)
    return await run_in_threadpool(_body, desk, access, found, asked, query, flora)


@router.get(
    "/v2/identify/{project}",
    summary="Identify one plant from addresses of 1–5 images of it",
    response_model_exclude_unset=True,
    responses={**answered(EXAMPLE), **errors(404, 413, 415)},
)
async def identify_urls(
    project: str,
    asked: Annotated[IdentifyUrlsQuery, Query()],
    access: IdentifyDependency,
    desk: AtDesk,
    remote_images: RemoteImagesDependency,
) -> AnswerBody:
    """As POST, for images on hosts that the operator has named; unless there are some, every address is refused."""
    serving = desk.serving
    check_address_length(desk.request.scope["query_string"])
    flora = check_project(project, desk.settings)
    organs = organs_of(asked.organs, len(asked.images))
    identifier = serving.identifier
    serving.queue.refuse_when_full()
    with desk.budget.share() as share:
        images = await remote_images.fetch(asked.images, share)
        found = await _identify(desk, identifier, images, asked)
    query = _query(project, asked, asked.images, organs)
    return await run_in_threadpool(_body, desk, access, found, asked, query, flora)


@dataclass(frozen=True, slots=True)
class _Found:
    """An identification and what else was worked out beside it."""

    identification: Identification
    image_ids: list[str]
    other_results: OtherResultsBody | None


async def _identify(desk: Desk, identifier: Identifier, images: Sequence[bytes], asked: IdentifyQuery) -> _Found:
    """What `identifier` finds. Raises `NoKnownPlant`."""

    def answer(looked: Looked) -> _Found:
        sheets = RELATED_IMAGES if asked.include_related_images else 0
        identification = identifier.answer(looked.encoded, top_k=asked.nb_results, sheets_per_candidate=sheets)
        other = None
        if asked.detailed:
            other = other_results_of(identifier.higher_taxon_probabilities(looked.encoded), asked.nb_results)
        return _Found(identification, [_image_id(image) for image in images], other)

    started = time.perf_counter()
    found = await desk.serving.queue.ask(identifier, images, answer, client_gone=lambda: client_gone(desk.request))
    identification = found.identification
    desk.metrics.identified(identification)
    if desk.kept_photos is not None:
        desk.kept_photos.keep(images, identification, request_id_of(desk.request))
    _log(desk.request, identification, 1000 * (time.perf_counter() - started))
    is_unknown = identification.novelty is not None and identification.novelty.is_unknown
    if not identification.candidates or (is_unknown and not asked.no_reject):
        raise NoKnownPlant(NOT_FOUND)
    return found


def _image_id(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:ID_LETTERS]


def _query(project: str, asked: IdentifyQuery, images: Sequence[str], organs: list[str]) -> QueryBody:
    return QueryBody(
        project=project,
        images=list(images),
        organs=organs,
        include_related_images=asked.include_related_images,
        no_reject=asked.no_reject,
        type=asked.type,
    )


def _body(desk: Desk, access: Access, found: _Found, asked: IdentifyQuery, query: QueryBody, flora: str) -> AnswerBody:
    candidates = found.identification.candidates
    sheets = _sheets(desk.serving, found.identification)
    base_url = base_url_of(desk.request, desk.settings)
    other = {} if found.other_results is None else {"other_results": found.other_results}
    return AnswerBody(
        query=query,
        predicted_organs=[],
        language=asked.lang,
        prefered_referential=flora,
        best_match=candidates[0].species.scientific_name,
        results=[result_of(candidate, sheets, base_url) for candidate in candidates],
        version=found.identification.bundle_id,
        remaining_identification_requests=remaining_of(access),
        **other,
    )


def _sheets(serving: Serving, identification: Identification) -> dict[str, Sheet]:
    """The sheets that are cited, as far as they are known; a catalogue that cannot be read is no reason to fail."""
    cited = [match.sheet_id for candidate in identification.candidates for match in candidate.sheets]
    if not cited:
        return {}
    try:
        return serving.collection.cited_sheets(cited)
    except (CatalogueError, StorageFull) as error:
        logger.warning("results come without related images: %s", error)
        return {}


def _log(request: Request, identification: Identification, milliseconds: float) -> None:
    first = identification.candidates[0].similarity if identification.candidates else None
    logger.info(
        "identification request_id=%s api=v2 photos=%d outcome=%s source=%s top_similarity=%s milliseconds=%.0f",
        request_id_of(request),
        identification.photo_count,
        identification.outcome.value,
        identification.decision.source.value,
        "none" if first is None else f"{first:.3f}",
        milliseconds,
    )
