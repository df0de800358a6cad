"""What goes over the wire, field by field; the words are those of STYLE and Darwin Core."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

Similarity = Annotated[float, Field(ge=-1.001, le=1.001, description="cosine similarity, -1 … 1")]


class WireModel(BaseModel):
    """Base of all bodies that the service sends."""

    model_config = ConfigDict(frozen=True)


class Problem(WireModel):
    """RFC 9457 problem document; every error is one."""

    type: str = Field(description="stable identifier of the kind of problem")
    title: str = Field(description="the kind of problem in a few words")
    status: int = Field(description="HTTP status")
    detail: str = Field(description="what was expected, what was found, and the remedy")
    request_id: str = Field(description="also in the header X-Request-ID and in the service's log")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "urn:voucher:problem:unreadable-image",
                "title": "The photo cannot be used",
                "status": 422,
                "detail": "photo 2 is empty; choose the file again",
                "request_id": "0f6c1f2f4d1c4a8d9a53f2f6a8f1c001",
            }
        }
    )


class ExplanationBody(WireModel):
    """Where heat maps are that show what makes a photo and a sheet alike; each lies over its whole upright picture."""

    photo_position: int = Field(ge=1, description="which of the photos, from 1: the one most similar to the sheet")
    photo_heat_map_url: str = Field(description="PNG with transparency, relative to this service; it expires")
    sheet_heat_map_url: str


class SheetExplanationBody(WireModel):
    """A sheet that was to be explained."""

    sheet_id: str
    explanation: ExplanationBody | None = Field(description="null where the sheet's picture cannot be read")


class ExplanationsBody(WireModel):
    """The answer to `POST /v1/explanations`."""

    bundle_id: str = Field(description="the index in whose metric photo and sheets were compared")
    explanations: list[SheetExplanationBody] = Field(description="in the order of the sheets that were asked for")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "bundle_id": "index-20260101-120000-1f2e3d",
                "explanations": [
                    {
                        "sheet_id": "a3c1f0d2e4b596877869",
                        "explanation": {
                            "photo_position": 1,
                            "photo_heat_map_url": "/v1/explanations/0f6c1f2f4d1c4a8d9a53f2f6a8f1c001/photo-1.png",
                            "sheet_heat_map_url": "/v1/explanations/0f6c1f2f4d1c4a8d9a53f2f6a8f1c001/sheet-1.png",
                        },
                    }
                ],
            }
        }
    )


class SheetEvidence(WireModel):
    """A herbarium sheet that vouches for a candidate."""

    sheet_id: str
    similarity: Similarity
    institution_code: str | None = Field(None, description="Darwin Core institutionCode")
    collection_code: str | None = Field(None, description="Darwin Core collectionCode")
    catalog_number: str | None = Field(None, description="Darwin Core catalogNumber")
    image_url: str = Field(description="the sheet in full size, relative to this service")
    thumbnail_url: str
    explanation: ExplanationBody | None = Field(
        None, description="null unless explain=true asked for it, and where it could not be made"
    )


class CandidateBody(WireModel):
    """One possible species."""

    species_id: str
    scientific_name: str
    genus: str | None = None
    family: str | None = None
    probability: float = Field(ge=0, le=1, description="0 … 1; at most one in sum over the candidates")
    similarity: Similarity | None = Field(description="to the species' sheets as a whole; null when it has none")
    has_field_photos: bool = Field(
        description="whether field photos of this species were in training; without, less is certain"
    )
    in_classifier: bool = Field(description="whether the trained classifier has a column for the species")
    sheets: list[SheetEvidence] = Field(default_factory=list, description="the most similar first")


class DecisionBody(WireModel):
    """Who decided, and why."""

    source: str = Field(description="specialist, generalist or fusion")
    reason: str = Field(description="a sentence for people")
    evidence: dict[str, float] = Field(description="the figures that the decision rests on")


class RollUpBody(WireModel):
    """The lowest taxon that is likely enough."""

    taxon_rank: str = Field(description="species, genus or family (Darwin Core taxonRank)")
    name: str
    probability: float = Field(ge=0, le=1, description="summed over the taxon's species")
    species_count: int = Field(ge=1, description="species of the index that belong to it")


class UnknownBody(WireModel):
    """Whether the plant is of a species that the index does not hold."""

    score: float = Field(ge=0, le=1, description="the higher, the less the plant looks like any species of the index")
    threshold: float = Field(ge=0, le=1, description="95 % of photos of known species lie below")
    is_unknown: bool = Field(description="whether the answer is: none of these")


class SpeciesName(WireModel):
    """A species by id and name."""

    species_id: str
    scientific_name: str


class PredictionSetBody(WireModel):
    """Species among which the true one is, with a stated probability."""

    coverage: float = Field(ge=0, le=1, description="how often such a set holds the true species")
    size: int = Field(ge=0, description="species in the set; 0 when none is likely enough")
    species: list[SpeciesName] = Field(description="the likeliest of the set first, at most 50")
    herbarium_only: int = Field(ge=0, description="how many of the set are known from sheets alone")
    guarantee: str = Field(description="for whom the coverage holds, and how it is known")


class IgnoredBody(WireModel):
    """What of a restriction the index does not hold."""

    count: int = Field(ge=0)
    entries: list[str] = Field(description="species_ids, then genera, then families; at most 50")


class IdentificationBody(WireModel):
    """The answer to `POST /v1/identifications`."""

    identification_id: str = Field(description="the request id, which finds the line in the log")
    bundle_id: str = Field(description="the index that answered")
    model_id: str = Field(description="the model that answered")
    software: str = Field(description="name and version of the software that answered")
    photo_count: int = Field(ge=1)
    outcome: str = Field(description="species, genus, family, undecided, or none of these")
    summary: str = Field(description="the answer in a sentence for people")
    calibrated: bool = Field(
        description="whether the probabilities were fitted to photos that the answering networks had not seen"
    )
    roll_up: RollUpBody | None = Field(description="null when not even a family is likely enough")
    unknown: UnknownBody | None = Field(description="null when too few photos told how unknown plants look")
    prediction_set: PredictionSetBody | None = Field(description="null when too few photos told a limit")
    decision: DecisionBody
    probability_outside: float | None = Field(
        None,
        ge=0,
        le=1,
        description="what the species that species_ids, genera and families left out have together, of all species; "
        "null when none of these was given",
    )
    ignored: IgnoredBody | None = Field(
        None, description="entries of species_ids, genera and families that were left out; null without ignore_unlisted"
    )
    candidates: list[CandidateBody] = Field(description="by falling probability")
    milliseconds: float = Field(ge=0, description="from the whole upload to the answer")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "identification_id": "0f6c1f2f4d1c4a8d9a53f2f6a8f1c001",
                "bundle_id": "index-20260101-120000-1f2e3d",
                "model_id": "model-20251220-093000-4c5b6a",
                "software": "voucher 0.1.0",
                "photo_count": 1,
                "outcome": "genus",
                "summary": "Genus Costus (91 %): the species are too close to call. Most likely: Costus arabicus L. "
                "(62 %).",
                "calibrated": True,
                "roll_up": {"taxon_rank": "genus", "name": "Costus", "probability": 0.91, "species_count": 4},
                "unknown": {"score": 0.21, "threshold": 0.83, "is_unknown": False},
                "prediction_set": {
                    "coverage": 0.9,
                    "size": 1,
                    "species": [{"species_id": "105951", "scientific_name": "Costus arabicus L."}],
                    "herbarium_only": 1,
                    "guarantee": "Of photos of species with field photos, 90 % have their species in such a set. For "
                    "the one species known from herbarium sheets only, this is estimated from species whose photos "
                    "were hidden in training, and not guaranteed.",
                },
                "decision": {
                    "source": "generalist",
                    "reason": "No field photos of the nearest species were in training; the sheets decided.",
                    "evidence": {"prototype_distance": 0.41},
                },
                "probability_outside": None,
                "ignored": None,
                "candidates": [
                    {
                        "species_id": "105951",
                        "scientific_name": "Costus arabicus L.",
                        "genus": "Costus",
                        "family": "Costaceae",
                        "probability": 0.62,
                        "similarity": 0.71,
                        "has_field_photos": False,
                        "in_classifier": True,
                        "sheets": [
                            {
                                "sheet_id": "a3c1f0d2e4b596877869",
                                "similarity": 0.74,
                                "institution_code": "CAY",
                                "collection_code": None,
                                "catalog_number": "CAY012345",
                                "image_url": "/v1/sheets/a3c1f0d2e4b596877869/image",
                                "thumbnail_url": "/v1/sheets/a3c1f0d2e4b596877869/thumbnail?size=320",
                            }
                        ],
                    }
                ],
                "milliseconds": 184.0,
            }
        }
    )


class SpeciesBody(WireModel):
    """One species of the catalogue."""

    species_id: str
    scientific_name: str
    genus: str | None = None
    family: str | None = None
    sheet_count: int = Field(ge=0)
    field_photo_count: int = Field(ge=0)
    in_index: bool | None = Field(None, description="whether answers can name it now; null while no index answers")
    in_classifier: bool | None = Field(
        None, description="as in a candidate; null for species that are not in the index"
    )
    has_field_photos: bool | None = Field(None, description="as in a candidate; null as in_classifier")


class SpeciesPage(WireModel):
    """A page of the species list, by scientific name."""

    total: int = Field(ge=0, description="species that fit the search")
    limit: int
    offset: int
    species: list[SpeciesBody]


class SheetBody(WireModel):
    """One herbarium sheet."""

    sheet_id: str
    species_id: str
    scientific_name: str
    institution_code: str | None = Field(None, description="Darwin Core institutionCode")
    collection_code: str | None = Field(None, description="Darwin Core collectionCode")
    catalog_number: str | None = Field(None, description="Darwin Core catalogNumber")
    license: str | None = None
    rights_holder: str | None = None
    added_at: str | None = Field(None, description="UTC, ISO 8601; null where it was not noted")
    removed_at: str | None = Field(None, description="UTC, ISO 8601; null while it is in the collection")
    removed: bool = Field(False, description="taken out of the collection; the next index is without it")
    width: int = Field(ge=1, description="pixels")
    height: int = Field(ge=1, description="pixels")
    image_url: str
    thumbnail_url: str


class AddedSheetBody(SheetBody):
    """A sheet that was sent, as the collection holds it now."""

    outcome: Literal["added", "restored", "already_present"]


class AddedSheetsBody(WireModel):
    """Sheets in the order of their images."""

    sheets: list[AddedSheetBody]


class MovedSheetsBody(WireModel):
    """All sheets of the specimen that was determined anew, also those that are removed."""

    sheets: list[SheetBody]


class CuratorBody(BaseModel):
    """Who changes something."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    curator: str | None = Field(None, max_length=200, description="who asks, for the record")


class SheetMoveBody(CuratorBody):
    """The species that a specimen really is."""

    species_id: str = Field(min_length=1, max_length=200, description="of a species of the catalogue")


class NewSpeciesBody(CuratorBody):
    """A species to enter."""

    scientific_name: str = Field(min_length=1, max_length=300)
    genus: str | None = Field(None, max_length=300)
    family: str | None = Field(None, max_length=300)
    species_id: str | None = Field(None, max_length=200, description="null: one is made from the name")


class SheetPage(WireModel):
    """A page of a species' sheets."""

    total: int = Field(ge=0)
    limit: int
    offset: int
    sheets: list[SheetBody]


class Health(WireModel):
    """The process is alive."""

    status: str


class ReadinessCheck(WireModel):
    """One thing that the service needs; a warning says that plants are identified all the same."""

    name: str
    state: Literal["ok", "warning", "fault"]
    detail: str | None = Field(description="what is wrong and how to mend it; null when all is well")


class Readiness(WireModel):
    """The service identifies plants."""

    status: str
    bundle_id: str
    model_id: str
    species_count: int
    complaint: str | None = Field(
        None, description="why the bundle that was activated last does not answer; the one before goes on"
    )
    checks: list[ReadinessCheck] = Field(description="everything that was looked at")


class IndexBuildBody(BaseModel):
    """What a new index is asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_id: str | None = Field(None, max_length=128, description="of a trained model; null: the latest")
    activate: bool = Field(True, description="put it into service when it is built and its figures hold")
    from_nothing: bool = Field(False, description="do not continue the latest index")
    curator: str | None = Field(None, max_length=200, description="who asks, for the record")


class JobProgressBody(WireModel):
    """How far a job is."""

    stage: str
    done: int
    total: int
    per_second: float | None = Field(description="of the stage; null while nothing can be said")
    seconds_left: float | None = Field(description="of the stage")


class BatchBody(WireModel):
    """Photos that were sent together, and how far their identification is."""

    batch_id: str = Field(description="also the id of its job")
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    created_at: str = Field(description="UTC, ISO 8601")
    started_at: str | None
    finished_at: str | None
    expires_at: str | None = Field(description="when it is deleted with its results; null until it is finished")
    plants: int = Field(ge=1, description="rows that the results will have")
    photos: int = Field(ge=0, description="photos that can be looked at")
    done: int = Field(ge=0, description="plants that have their row")
    failed: int = Field(ge=0, description="rows so far that hold an error")
    progress: JobProgressBody | None
    bundle_id: str | None = Field(description="the index that answers; null until it began")
    model_id: str | None
    reason: str | None = Field(description="why it failed as a whole")
    results_url: str


class EmbeddingsBody(WireModel):
    """Vectors of images."""

    bundle_id: str
    model_id: str
    space_id: str = Field(description="vectors of one space may be compared, others not")
    role: Literal["sheet", "field"] | None = Field(description="the images' role, if they are in the bundle's metric")
    dimensions: int = Field(ge=1, description="numbers of one vector")
    embeddings: list[list[float]] = Field(description="a unit vector for each image, in their order")


class ActivationBody(BaseModel):
    """Who has a bundle served."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    curator: str | None = Field(None, max_length=200, description="who asks, for the record")


class JobBody(WireModel):
    """Long work that a worker does."""

    job_id: str
    kind: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    created_at: str = Field(description="UTC, ISO 8601")
    started_at: str | None
    finished_at: str | None
    requested_by: str
    progress: JobProgressBody | None
    result: dict[str, Any] | None = Field(description="of a build: its bundle, counts, figures, and whether it serves")
    reason: str | None = Field(description="why it failed")


class JobList(WireModel):
    """Jobs, the latest first."""

    jobs: list[JobBody]


class RevisionBody(WireModel):
    """One change of the catalogue."""

    revision: int = Field(ge=1, description="its number; the order of changes, whatever clocks say")
    at: str = Field(description="UTC, ISO 8601")
    by: str
    action: str
    sheets: int = Field(ge=0, description="how many it was about")


class ChangesBody(WireModel):
    """What was done to the collection."""

    pending: int = Field(ge=0, description="sheets that were changed since the newest index was built")
    pending_is_more: bool = Field(description="whether there are more than are counted")
    since: int = Field(ge=0, description="the revision that the newest index was built from; 0 without one")
    newest_is_served: bool = Field(description="whether the index in service knows as much as the newest one")
    latest: list[RevisionBody] = Field(description="the latest first")


class ValidationBody(WireModel):
    """Figures of a bundle on validation photos, to compare bundles by: no accuracy, since training knows them."""

    photos: int
    species: int
    top1: float
    top1_interval: list[float] | None
    top5: float
    mrr: float


class BundleChangesBody(WireModel):
    """What differs from the bundle that was continued."""

    added: int = 0
    removed: int = 0
    moved: int = 0
    species_added: int = 0
    species_removed: int = 0
    revisions: list[dict[str, Any]] = Field(default=[], description="who changed what in the catalogue, and when")


class BundleBody(WireModel):
    """One version of the index."""

    bundle_id: str
    model_id: str
    number: int = Field(description="counts the builds, in the order that they were done")
    created_at: str
    catalogue_revision: int
    species: int
    sheets: int
    base: str | None = Field(description="the bundle that it continues")
    built_by: str
    job_id: str | None
    changes: BundleChangesBody
    validation: ValidationBody | None
    held_back: str | None = Field(description="why it was not put into service by itself")
    is_active: bool = Field(description="whether it is served")
    fault: str | None = Field(description="why it cannot be served")


class BundleList(WireModel):
    """Bundles, the latest first."""

    bundles: list[BundleBody]


class BundleDifferenceBody(WireModel):
    """From one bundle to another; lists are cut at a thousand, counts are not."""

    before: str
    after: str
    counts: dict[str, int]
    species_added: list[str]
    species_removed: list[str]
    added: list[dict[str, str]]
    removed: list[dict[str, str]]
    moved: list[dict[str, str]]


class SignInBody(BaseModel):
    """The key to sign in with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: SecretStr = Field(min_length=1, max_length=200, description="as `voucher keys create` has shown it")
    remember: bool = Field(False, description="stay signed in for 30 days; otherwise until the browser is closed")


class QuotaBody(WireModel):
    """What a key has left of its day (UTC)."""

    limit: int = Field(ge=1, description="identifications")
    remaining: int = Field(ge=0)
    resets_in_seconds: int = Field(ge=0)


class SessionBody(WireModel):
    """What one may do here."""

    keys_needed: bool = Field(description="whether identifying needs a key")
    signed_in: bool = Field(description="whether the request shows a key that is right")
    key_id: str | None = Field(description="the public part of the key")
    name: str | None = Field(description="what the operator has called the key")
    scopes: list[str] = Field(description="identify, curate")
    expires_at: str | None = Field(description="UTC, ISO 8601; null when the key does not expire")
    may_identify: bool
    may_curate: bool
    may_read: bool = Field(description="see species, sheets and their images")
    curation_refusal: str | None = Field(description="why the collection cannot be changed; null when it can")
    quota: QuotaBody | None = Field(description="null where there is no limit")
