"""`/v2`: what can be identified, in which languages, and what is left of the day."""

import re
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import BeforeValidator, Field

from app.dependencies import ServingDependency, SettingsDependency
from app.plantnet.answer import image_of, listed_species_of
from app.plantnet.asked import FLORA, LANGUAGES, Asked, Language, ModelType, check_address_length, check_project
from app.plantnet.documented import TAG, answered, errors
from app.plantnet.links import base_url_of
from app.plantnet.quota import UnchargedAccess, limit_of, today, used_by_day
from app.plantnet.wire import (
    CountBody,
    DailyQuotaBody,
    DayQuotaBody,
    DayUsageBody,
    HistoryDayBody,
    ListedSpeciesBody,
    PastQuotaBody,
    PastUsageBody,
    ProjectBody,
    StatusBody,
)
from app.refusals import UnacceptableForm
from app.serving import Serving
from models.taxonomy import Species

router = APIRouter(tags=[TAG])

MOST_WITH_IMAGES = 100
"""Species on a page that comes with images: each takes a question to the database."""

IMAGES_OF_A_SPECIES = 3
MAX_PAGE = 1_000_000


def _calendar_day(given: object) -> date:
    # Not any text that pydantic takes for a date: numbers would count as seconds since 1970.
    if not isinstance(given, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", given):
        raise ValueError("expected a day such as 2026-11-21")
    return date.fromisoformat(given)


Day = Annotated[date, BeforeValidator(_calendar_day)]


class ProjectsQuery(Asked):
    """Which floras."""

    lang: Language = Field("en", description="titles are in English in any language")
    lat: float | None = Field(None, ge=-90, le=90, description="passed over: there is one flora")
    lon: float | None = Field(None, ge=-180, le=180, description="passed over: there is one flora")
    type: ModelType = Field("kt", description="passed over: there is one flora")
    api_key: str | None = Field(None, alias="api-key", description="the key, where the service asks for one")


class SpeciesQuery(Asked):
    """Which species."""

    lang: Language = Field("en", description="names are scientific in any language")
    type: ModelType = Field("kt", description="passed over: there is one flora")
    page_size: int | None = Field(
        None, alias="pageSize", ge=1, le=MAX_PAGE, description="species on a page; with `page`, or all are sent"
    )
    page: int | None = Field(None, ge=1, le=MAX_PAGE, description="page, from 1; with `pageSize`")
    prefix: str = Field("", max_length=200, description="beginning of the scientific name, in any case")
    images: bool = Field(False, description=f"whether sheets come along; for pages of at most {MOST_WITH_IMAGES}")
    api_key: str | None = Field(None, alias="api-key", description="the key, where the service asks for one")


class DailyQuery(Asked):
    """Which day."""

    day: Day | None = Field(None, description="UTC; today where none is given")
    api_key: str | None = Field(None, alias="api-key", description="the key, where the service asks for one")


class HistoryQuery(Asked):
    """Which year."""

    year: str | None = Field(None, pattern=r"^[0-9]{4}$", description="UTC; this year where none is given")
    api_key: str | None = Field(None, alias="api-key", description="the key, where the service asks for one")


SPECIES_EXAMPLE: list[dict[str, Any]] = [
    {
        "id": "105951",
        "scientificNameWithoutAuthor": "Costus arabicus",
        "scientificNameAuthorship": "L.",
        "genus": "Costus",
        "family": "Costaceae",
        "commonNames": [],
    }
]


@router.get("/v2/_status", summary="Whether the service works", responses=errors())
def get_status(serving: ServingDependency) -> StatusBody:
    """`ok` where plants can be identified; needs no key."""
    _ = serving.identifier
    return StatusBody(status="ok")


@router.get("/v2/languages", summary="List the languages that `lang` may be", responses=errors())
def list_languages(access: UnchargedAccess) -> list[str]:
    """Codes that clients may send; names are scientific in any of them."""
    return list(LANGUAGES)


@router.get("/v2/projects", summary="List the floras", responses=errors())
def list_projects(
    asked: Annotated[ProjectsQuery, Query()], access: UnchargedAccess, serving: ServingDependency
) -> list[ProjectBody]:
    """The one flora: all species of the index. `all` means the same."""
    count = len(serving.identifier.species_ids)
    described = "All species that this service can identify."
    return [ProjectBody(id=FLORA, title="Collection", description=described, species_count=count)]


@router.get(
    "/v2/species",
    summary="List the species that can be identified",
    response_model_exclude_unset=True,
    responses={**answered(SPECIES_EXAMPLE), **errors()},
)
def list_species(
    request: Request,
    asked: Annotated[SpeciesQuery, Query()],
    access: UnchargedAccess,
    serving: ServingDependency,
    settings: SettingsDependency,
) -> list[ListedSpeciesBody]:
    """By scientific name; all of them, unless `pageSize` and `page` are given."""
    check_address_length(request.scope["query_string"])
    return _listed(serving, asked, base_url_of(request, settings))


@router.get(
    "/v2/projects/{project}/species",
    summary="List the species of a flora",
    response_model_exclude_unset=True,
    responses={**answered(SPECIES_EXAMPLE), **errors(404)},
)
def list_project_species(
    request: Request,
    project: Annotated[str, Path(max_length=200)],
    asked: Annotated[SpeciesQuery, Query()],
    access: UnchargedAccess,
    serving: ServingDependency,
    settings: SettingsDependency,
) -> list[ListedSpeciesBody]:
    """As `/v2/species`, which are all of the one flora."""
    check_address_length(request.scope["query_string"])
    check_project(project, settings)
    return _listed(serving, asked, base_url_of(request, settings))


@router.get("/v2/quota/daily", summary="What was used of a day, and is left of it", responses=errors())
async def get_daily_quota(
    request: Request, asked: Annotated[DailyQuery, Query()], access: UnchargedAccess
) -> DailyQuotaBody:
    """Identifications of the key. Without a limit `total` and `remaining` are 2147483647."""
    day = asked.day or today()
    count = (await used_by_day(request, access, day.year)).get(day, 0)
    total = limit_of(access)
    remaining = total if access.quota is None else max(0, total - count)
    return DailyQuotaBody(
        day=day.isoformat(),
        quota=DayQuotaBody(identify=DayUsageBody(count=count, total=total, remaining=remaining)),
        count=CountBody(identify=count),
        remaining=CountBody(identify=remaining),
    )


@router.get("/v2/quota/history", summary="Identifications of each day", responses=errors())
async def get_quota_history(
    request: Request, asked: Annotated[HistoryQuery, Query()], access: UnchargedAccess
) -> list[HistoryDayBody]:
    """Of the key, the latest day first; days without any are left out."""
    used = await used_by_day(request, access, today().year if asked.year is None else int(asked.year))
    return [
        HistoryDayBody(
            day=day.isoformat(),
            quota=PastQuotaBody(identify=PastUsageBody(count=count)),
            count=CountBody(identify=count),
        )
        for day, count in used.items()
    ]


def _listed(serving: Serving, asked: SpeciesQuery, base_url: str) -> list[ListedSpeciesBody]:
    page = _page(serving.identifier.species, asked)
    if not asked.images:
        return [listed_species_of(species, None) for species in page]
    if len(page) > MOST_WITH_IMAGES:
        raise UnacceptableForm(f"images: expected a pageSize of at most {MOST_WITH_IMAGES} with it, and a page")
    catalogue = serving.collection.catalogue
    return [
        listed_species_of(
            species,
            [
                image_of(sheet, base_url)
                for sheet in catalogue.sheets_page(species.species_id, limit=IMAGES_OF_A_SPECIES)
            ],
        )
        for species in page
    ]


def _page(species: Sequence[Species], asked: SpeciesQuery) -> list[Species]:
    """The species that were asked for, by name."""
    prefix = " ".join(asked.prefix.casefold().split())
    found = [each for each in species if each.scientific_name.casefold().startswith(prefix)] if prefix else species
    ordered = sorted(found, key=lambda each: (each.scientific_name.casefold(), each.species_id))
    if asked.page_size is None or asked.page is None:
        return ordered
    start = asked.page_size * (asked.page - 1)
    return ordered[start : start + asked.page_size]
