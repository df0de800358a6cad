"""An identification, told in Pl@ntNet's words."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from app.plantnet.wire import (
    DateBody,
    FamilyResultBody,
    GenusResultBody,
    ImageBody,
    ListedSpeciesBody,
    NamedSpeciesBody,
    OtherResultsBody,
    ResultBody,
    TaxonBody,
    UrlBody,
)
from app.routes.sheets import image_url, thumbnail_url
from models.retrieval import Candidate
from models.scientific_name import split_scientific_name
from models.specimens import Sheet
from models.taxonomy import Species, TaxonRank

DIGITS = 5
"""Of a score."""

MIDDLE_SIZE = 640
SMALL_SIZE = 160
"""Longest sides in pixels, of the closed list of renditions."""

_MONTHS = "January February March April May June July August September October November December"
MONTHS = tuple(_MONTHS.split())
"""The same in every locale, unlike those of strftime."""

SHEET_ORGAN = "other"


def species_of(species: Species) -> NamedSpeciesBody:
    """A species with its names taken apart."""
    name = split_scientific_name(species.scientific_name)
    return NamedSpeciesBody(
        scientific_name_without_author=name.without_author,
        scientific_name_authorship=name.authorship,
        genus=taxon_of(species.genus or name.genus),
        family=taxon_of(species.family),
        common_names=[],
        scientific_name=species.scientific_name,
    )


def taxon_of(name: str | None) -> TaxonBody:
    """A genus or family; empty strings for None, since clients expect it to be there."""
    split = split_scientific_name(name or "")
    return TaxonBody(
        scientific_name_without_author=split.without_author,
        scientific_name_authorship=split.authorship,
        scientific_name=name or "",
    )


def result_of(candidate: Candidate, sheets: Mapping[str, Sheet], base_url: str) -> ResultBody:
    """One possible species; of its sheets those that are in `sheets`."""
    cited = [sheets[match.sheet_id] for match in candidate.sheets if match.sheet_id in sheets]
    return ResultBody(
        score=round(candidate.probability, DIGITS),
        species=species_of(candidate.species),
        images=[image_of(sheet, base_url) for sheet in cited],
    )


def other_results_of(totals: Mapping[TaxonRank, Sequence[tuple[str, float]]], count: int) -> OtherResultsBody:
    """The first genera and families, by falling probability."""
    return OtherResultsBody(
        genus=[
            GenusResultBody(score=round(min(1.0, total), DIGITS), genus=taxon_of(name), images=[])
            for name, total in totals[TaxonRank.GENUS][:count]
        ],
        family=[
            FamilyResultBody(score=round(min(1.0, total), DIGITS), family=taxon_of(name), images=[])
            for name, total in totals[TaxonRank.FAMILY][:count]
        ],
    )


def listed_species_of(species: Species, images: list[ImageBody] | None) -> ListedSpeciesBody:
    """A species in a list; `images` None when they were not asked for."""
    name = split_scientific_name(species.scientific_name)
    given = {} if images is None else {"images": images}
    return ListedSpeciesBody(
        id=species.species_id,
        scientific_name_without_author=name.without_author,
        scientific_name_authorship=name.authorship,
        genus=species.genus or name.genus or "",
        family=species.family or "",
        common_names=[],
        **given,
    )


def image_of(sheet: Sheet, base_url: str) -> ImageBody:
    """A herbarium sheet as an image that can be shown and must be cited; addresses begin with `base_url`."""
    author = sheet.rights_holder or sheet.specimen.institution_code or ""
    return ImageBody(
        organ=SHEET_ORGAN,
        author=author,
        license=sheet.license or "",
        date=date_of(sheet.added_at),
        citation=citation_of(sheet),
        url=UrlBody(
            o=base_url + image_url(sheet.sheet_id),
            m=base_url + thumbnail_url(sheet.sheet_id, MIDDLE_SIZE),
            s=base_url + thumbnail_url(sheet.sheet_id, SMALL_SIZE),
        ),
    )


def citation_of(sheet: Sheet) -> str:
    """How to cite a sheet: ``Rights holder / CAY herbarium CAY012345, CC BY 4.0``, as far as it is known."""
    specimen = sheet.specimen
    codes = [specimen.institution_code, specimen.collection_code, specimen.catalog_number]
    cited = " ".join(code for code in codes if code) or f"sheet {sheet.sheet_id}"
    holder = sheet.rights_holder
    who = f"{holder} / {cited}" if holder and holder != specimen.institution_code else cited
    return f"{who}, {sheet.license}" if sheet.license else who


def date_of(moment: datetime | None) -> DateBody:
    """A moment of UTC in both of Pl@ntNet's forms."""
    if moment is None:
        return DateBody(timestamp=None, string="")
    utc = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return DateBody(timestamp=round(utc.timestamp() * 1000), string=f"{MONTHS[utc.month - 1]} {utc.day}, {utc.year}")
