"""Who may read the metrics: they tell how much a service is used, and are not for the public."""

import hmac

from starlette.requests import HTTPConnection

from app.refusals import MetricsRefused
from app.settings import Settings
from app.this_machine import is_of_this_machine

_REMEDY = "set VOUCHER_METRICS_TOKEN and send it as a bearer token, or VOUCHER_METRICS=open where only you can ask"


def check_metrics(settings: Settings, connection: HTTPConnection) -> None:
    """Raises `MetricsRefused` for a request that may not read the metrics.

    ``open`` lets everybody, ``off`` nobody. ``auto`` lets in who shows the token, if there is one, and programs of
    this machine: a request from a loopback address, for a loopback name, that no proxy has passed on. A private
    address is no proof: Docker and proxies give theirs to whoever asks.
    """
    if settings.metrics == "off":
        raise MetricsRefused("metrics are off: this service was started with VOUCHER_METRICS=off")
    if settings.metrics == "open" or _shows_token(settings, connection) or is_of_this_machine(connection):
        return
    raise MetricsRefused(f"metrics are for programs of this machine and for those that know a token; {_REMEDY}")


def _shows_token(settings: Settings, connection: HTTPConnection) -> bool:
    if settings.metrics_token is None:
        return False
    kind, _, shown = connection.headers.get("authorization", "").partition(" ")
    expected = settings.metrics_token.get_secret_value()
    return kind.lower() == "bearer" and hmac.compare_digest(shown.strip().encode(), expected.encode())
