"""Why a request is not answered as asked: the exceptions of this layer, beside those of `models.errors`.

How each is told to the client stands in `app.error_responses`.
"""

from typing import TYPE_CHECKING

from models.errors import VoucherError

if TYPE_CHECKING:
    from app.access_control import Admission


class RequestRefused(VoucherError):
    """The request itself is wrong; the message tells its sender how."""


class MalformedRequest(RequestRefused):
    """The body is not the multipart form that its head announces."""


class UnacceptableForm(RequestRefused):
    """A form field is missing, unknown, out of range or there too often."""


class UnsupportedUpload(RequestRefused):
    """The body, or a photo in it, is of a media type that is not accepted."""


class RequestTooLarge(RequestRefused):
    """The body has more bytes than are accepted."""


class UnknownExplanation(RequestRefused):
    """There is no such heat map, or it has expired."""


class BodyTimeout(RequestRefused):
    """The body did not arrive in time."""


class AccessRefused(RequestRefused):
    """The request is not let in; `admission` is what its key still has, where that is the reason."""

    def __init__(
        self, message: str, *, retry_after_seconds: int | None = None, admission: "Admission | None" = None
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.admission = admission


class KeyMissing(AccessRefused):
    """This needs an API key, and the request shows none."""


class KeyWrong(AccessRefused):
    """The key that the request shows is none of this service, or no longer."""


class ScopeMissing(AccessRefused):
    """The key is for other things."""


class TooManyFailures(AccessRefused):
    """Too many wrong keys came from the client's address."""


class RateExceeded(AccessRefused):
    """The key has asked too often within a minute."""


class QuotaSpent(AccessRefused):
    """The key has identified as many plants today as it may."""


class ExplanationsOff(RequestRefused):
    """The service makes no heat maps."""


class CurationOff(RequestRefused):
    """The collection cannot be changed over HTTP here."""


class ForeignPage(RequestRefused):
    """A page of another site sends the request from its visitor's browser."""


class MetricsRefused(RequestRefused):
    """The request may not read the metrics."""


class RemoteImageRefused(RequestRefused):
    """An image cannot be fetched from the address that is given for it."""


class AddressTooLong(RequestRefused):
    """The request's own address is longer than is read."""


class UnknownProject(RequestRefused):
    """There is no such flora to look the plant up in (Pl@ntNet's word: project)."""


class NoKnownPlant(RequestRefused):
    """The photos show no plant that the index knows."""


class BatchUnfinished(RequestRefused):
    """The results of a batch were asked for before it is done."""


class ClientGone(RequestRefused):
    """The client closed the connection before it had its answer."""


class AnswerTimeout(VoucherError):
    """The answer was not ready in time."""


class ShuttingDown(VoucherError):
    """The service ends, and has waited for the request as long as it may."""


class NotReady(VoucherError):
    """There is nothing to answer from: no catalogue or no bundle could be loaded."""
