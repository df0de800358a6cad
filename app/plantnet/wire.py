"""What goes over the wire below /v2, field by field as Pl@ntNet's OpenAPI description has it."""

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class PlantnetModel(BaseModel):
    """Base of all bodies below /v2."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class ErrorBody(PlantnetModel):
    """Every error below /v2."""

    status_code: int = Field(examples=[404])
    error: str = Field(description="name of the status", examples=["Not Found"])
    message: str = Field(description="what was wrong, for people", examples=["Species not found"])


class TaxonBody(PlantnetModel):
    """A genus or family; all empty where it is not known."""

    scientific_name_without_author: str
    scientific_name_authorship: str = Field(description="empty where it is not known")
    scientific_name: str


class NamedSpeciesBody(PlantnetModel):
    """A species in a result."""

    scientific_name_without_author: str
    scientific_name_authorship: str
    genus: TaxonBody
    family: TaxonBody
    common_names: list[str] = Field(description="always empty: the catalogue holds scientific names alone")
    scientific_name: str


class DateBody(PlantnetModel):
    """When a sheet came into the collection."""

    timestamp: int | None = Field(description="milliseconds since 1970; null where it is not known")
    string: str = Field(description="in English; empty where it is not known", examples=["June 17, 2022"])


class UrlBody(PlantnetModel):
    """Absolute addresses of one image: original, middle and small."""

    o: str
    m: str
    s: str


class ImageBody(PlantnetModel):
    """A herbarium sheet in the place of a related image."""

    organ: str = Field(description="always `other`: a sheet shows the whole pressed plant")
    author: str = Field(description="who holds the rights, or the herbarium")
    license: str
    date: DateBody
    citation: str = Field(examples=["CAY herbarium CAY012345, CC BY 4.0"])
    url: UrlBody


class ResultBody(PlantnetModel):
    """One possible species."""

    score: float = Field(ge=0, le=1, description="calibrated probability")
    species: NamedSpeciesBody
    images: list[ImageBody] = Field(description="its most similar sheets; empty unless include-related-images is true")


class GenusResultBody(PlantnetModel):
    """One possible genus."""

    score: float = Field(ge=0, le=1, description="sum over its species")
    genus: TaxonBody
    images: list[ImageBody] = Field(description="always empty")


class FamilyResultBody(PlantnetModel):
    """One possible family."""

    score: float = Field(ge=0, le=1, description="sum over its species")
    family: TaxonBody
    images: list[ImageBody] = Field(description="always empty")


class OtherResultsBody(PlantnetModel):
    """Genera and families, where `detailed` is true."""

    genus: list[GenusResultBody]
    family: list[FamilyResultBody]


class QueryBody(PlantnetModel):
    """What was asked."""

    project: str
    images: list[str] = Field(description="an id for each upload, or the addresses that were given")
    organs: list[str]
    include_related_images: bool
    no_reject: bool
    type: str | None


class PredictedOrganBody(PlantnetModel):
    """Which organ an image shows."""

    image: str
    filename: str
    organ: str
    score: float


class AnswerBody(PlantnetModel):
    """The answer to an identification."""

    query: QueryBody
    predicted_organs: list[PredictedOrganBody] = Field(description="always empty: organs are not predicted")
    language: str
    prefered_referential: str
    best_match: str
    results: list[ResultBody]
    version: str = Field(description="the bundle that answered")
    remaining_identification_requests: int
    other_results: OtherResultsBody | None = Field(None, description="absent unless `detailed` is true")


class ProjectBody(PlantnetModel):
    """A flora."""

    id: str
    title: str
    description: str
    species_count: int


class ListedSpeciesBody(PlantnetModel):
    """A species that can be identified."""

    id: str
    scientific_name_without_author: str
    scientific_name_authorship: str
    genus: str
    family: str
    common_names: list[str]
    images: list[ImageBody] | None = Field(None, description="absent unless `images` is true")


class StatusBody(PlantnetModel):
    """The service works."""

    status: str = Field(examples=["ok"])


class CountBody(PlantnetModel):
    """Identifications."""

    identify: int


class DayUsageBody(PlantnetModel):
    """Identifications of one day and what is left of them."""

    count: int
    total: int
    remaining: int


class DayQuotaBody(PlantnetModel):
    """By kind of request."""

    identify: DayUsageBody


class DailyQuotaBody(PlantnetModel):
    """The quota of a key today, in the shape of the present description and in that of 2025."""

    day: str
    quota: DayQuotaBody
    count: CountBody
    remaining: CountBody


class PastUsageBody(PlantnetModel):
    """Identifications of a day that is over, or of today so far."""

    count: int


class PastQuotaBody(PlantnetModel):
    """By kind of request."""

    identify: PastUsageBody


class HistoryDayBody(PlantnetModel):
    """One day of a key."""

    day: str
    quota: PastQuotaBody
    count: CountBody
