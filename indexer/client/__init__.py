"""A client of the HTTP service, for programs in Python: `VoucherClient`. Imports neither networks nor databases."""

from indexer.client.answers import (
    AddedSheet,
    Batch,
    BatchResult,
    Bundle,
    Candidate,
    Embeddings,
    Explanations,
    Identification,
    Job,
    Readiness,
    Sheet,
    SheetEvidence,
    Species,
)
from indexer.client.client import VoucherClient
from indexer.client.forms import Photo
from indexer.client.problems import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    ServiceError,
    ServiceUnavailable,
    ServiceUnreachable,
    TooManyRequests,
)
from indexer.client.transport import Retries

__all__ = [
    "AddedSheet",
    "Batch",
    "BatchResult",
    "Bundle",
    "Candidate",
    "Conflict",
    "Embeddings",
    "Explanations",
    "Forbidden",
    "Identification",
    "InvalidRequest",
    "Job",
    "NotFound",
    "Photo",
    "Readiness",
    "Retries",
    "ServiceError",
    "ServiceUnavailable",
    "ServiceUnreachable",
    "Sheet",
    "SheetEvidence",
    "Species",
    "TooManyRequests",
    "VoucherClient",
]
