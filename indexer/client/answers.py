"""What the service answers, as frozen types; fields that a later service adds are passed over."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class Answer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Explanation(Answer):
    """Addresses of heat maps, relative to the service."""

    photo_position: int
    photo_heat_map_url: str
    sheet_heat_map_url: str


class SheetEvidence(Answer):
    """A sheet that vouches for a candidate; `similarity` is a cosine, -1 … 1."""

    sheet_id: str
    similarity: float
    institution_code: str | None = None
    collection_code: str | None = None
    catalog_number: str | None = None
    image_url: str | None = None
    thumbnail_url: str | None = None
    explanation: Explanation | None = None


class SheetExplanation(Answer):
    """A sheet that was to be explained; None where its picture cannot be read."""

    sheet_id: str
    explanation: Explanation | None


class Explanations(Answer):
    """Heat maps of photos and sheets, in the metric of a bundle."""

    bundle_id: str
    explanations: tuple[SheetExplanation, ...]


class Candidate(Answer):
    """One possible species; `probability` is 0 … 1, `similarity` a cosine."""

    species_id: str
    scientific_name: str
    genus: str | None = None
    family: str | None = None
    probability: float
    similarity: float | None
    has_field_photos: bool
    in_classifier: bool
    sheets: tuple[SheetEvidence, ...] = ()


class Decision(Answer):
    """Who decided (specialist, generalist or fusion) and why."""

    source: str
    reason: str
    evidence: dict[str, float]


class RollUp(Answer):
    """The lowest taxon that is likely enough."""

    taxon_rank: str
    name: str
    probability: float
    species_count: int


class Unknown(Answer):
    """Whether the plant is of a species that the index does not hold."""

    score: float
    threshold: float
    is_unknown: bool


class SpeciesName(Answer):
    """A species by id and name."""

    species_id: str
    scientific_name: str


class PredictionSet(Answer):
    """Species among which the true one is, with a stated probability."""

    coverage: float
    size: int
    species: tuple[SpeciesName, ...]
    herbarium_only: int
    guarantee: str


class BareIdentification(Answer):
    """The answer about one plant, as the rows of a batch hold it."""

    bundle_id: str
    model_id: str
    software: str
    photo_count: int
    outcome: str
    summary: str
    calibrated: bool
    roll_up: RollUp | None
    unknown: Unknown | None
    prediction_set: PredictionSet | None
    probability_outside: float | None = None
    decision: Decision
    candidates: tuple[Candidate, ...]


class Ignored(Answer):
    """What of a restriction the index does not hold; of many entries the first."""

    count: int
    entries: tuple[str, ...]


class Identification(BareIdentification):
    """The answer about one plant."""

    identification_id: str
    ignored: Ignored | None = None
    milliseconds: float


class Embeddings(Answer):
    """A unit vector for each image; those of one `space_id` may be compared."""

    bundle_id: str
    model_id: str
    space_id: str
    role: Literal["sheet", "field"] | None
    dimensions: int
    embeddings: tuple[tuple[float, ...], ...]


class Species(Answer):
    """One species of the catalogue."""

    species_id: str
    scientific_name: str
    genus: str | None = None
    family: str | None = None
    sheet_count: int
    field_photo_count: int
    in_index: bool | None = None
    in_classifier: bool | None = None
    has_field_photos: bool | None = None


class SpeciesPage(Answer):
    """A page of the list of species."""

    total: int
    limit: int
    offset: int
    species: tuple[Species, ...]


class Sheet(Answer):
    """One herbarium sheet; times are ISO 8601 in UTC."""

    sheet_id: str
    species_id: str
    scientific_name: str
    institution_code: str | None = None
    collection_code: str | None = None
    catalog_number: str | None = None
    license: str | None = None
    rights_holder: str | None = None
    added_at: str | None = None
    removed_at: str | None = None
    removed: bool = False
    width: int
    height: int
    image_url: str
    thumbnail_url: str


class SheetPage(Answer):
    """A page of a species' sheets."""

    total: int
    limit: int
    offset: int
    sheets: tuple[Sheet, ...]


class AddedSheet(Sheet):
    """A sheet that was sent, as the collection holds it now."""

    outcome: Literal["added", "restored", "already_present"]


class AddedSheets(Answer):
    """Sheets in the order of their images."""

    sheets: tuple[AddedSheet, ...]


class JobProgress(Answer):
    """How far a job is."""

    stage: str
    done: int
    total: int
    per_second: float | None
    seconds_left: float | None


class Job(Answer):
    """Long work that a worker does."""

    job_id: str
    kind: str
    state: JobState
    created_at: str
    started_at: str | None
    finished_at: str | None
    requested_by: str
    progress: JobProgress | None
    result: dict[str, Any] | None
    reason: str | None

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("succeeded", "failed", "cancelled")


class JobList(Answer):
    """Jobs, the latest first."""

    jobs: tuple[Job, ...]


class Batch(Answer):
    """Photos that were sent together, and how far their identification is."""

    batch_id: str
    state: JobState
    created_at: str
    started_at: str | None
    finished_at: str | None
    expires_at: str | None
    plants: int
    photos: int
    done: int
    failed: int
    progress: JobProgress | None
    bundle_id: str | None
    model_id: str | None
    reason: str | None
    results_url: str

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("succeeded", "failed", "cancelled")


class BatchResult(Answer):
    """One row of the results of a batch: an answer, or an error."""

    position: int
    file: str
    error: str | None
    answer: BareIdentification | None


class Validation(Answer):
    """Figures of a bundle on validation photos, to compare bundles by; training knows the photos."""

    photos: int
    species: int
    top1: float
    top1_interval: tuple[float, ...] | None
    top5: float
    mrr: float


class BundleChanges(Answer):
    """What differs from the bundle that was continued."""

    added: int = 0
    removed: int = 0
    moved: int = 0
    species_added: int = 0
    species_removed: int = 0
    revisions: tuple[dict[str, Any], ...] = ()


class Bundle(Answer):
    """One version of the index."""

    bundle_id: str
    model_id: str
    number: int
    created_at: str
    catalogue_revision: int
    species: int
    sheets: int
    base: str | None
    built_by: str
    job_id: str | None
    changes: BundleChanges
    validation: Validation | None
    held_back: str | None
    is_active: bool
    fault: str | None


class BundleList(Answer):
    """Bundles, the latest first."""

    bundles: tuple[Bundle, ...]


class ReadinessCheck(Answer):
    """One thing that the service needs."""

    name: str
    state: Literal["ok", "warning", "fault"]
    detail: str | None


class Readiness(Answer):
    """What the service identifies plants with."""

    status: str
    bundle_id: str
    model_id: str
    species_count: int
    complaint: str | None = None
    checks: tuple[ReadinessCheck, ...]
