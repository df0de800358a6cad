"""What `voucher doctor` asks the service: whether it could start with the settings of this environment."""

import importlib.util
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from app.settings import PREFIX, Settings, home_of, load_settings
from app.this_machine import is_loopback
from app.tracing import wants_traces
from models.errors import VoucherError
from models.findings import Finding

_ASK_SECONDS = 2.0


def check_settings(home: Path, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Findings about the settings, the keys that they call for, the port, the metrics and the traces."""
    try:
        settings = load_settings(home=home)
    except VoucherError as error:
        remedy = "mend or unset the variable; docs/operations.md lists them all"
        yield Finding.fault("settings", str(error), remedy=remedy)
        return
    given = sorted(name for name in environment if name.upper().startswith(PREFIX))
    yield Finding.ok("settings", f"{len(given)} set: {', '.join(given)}" if given else "all as by default")
    yield from _keys(settings)
    yield from _metrics(settings)
    yield from _traces(environment)
    yield _port(settings)


def _keys(settings: Settings) -> Iterator[Finding]:
    from app.access_control import check_start, count_keys

    try:
        check_start(settings)
        count = count_keys(home_of(settings))
    except VoucherError as error:
        remedy = "make a key with `voucher keys create --name NAME`, or listen on 127.0.0.1"
        yield Finding.fault("keys", str(error), remedy=remedy)
        return
    if settings.access == "open" and not is_loopback(settings.host):
        remedy = "make keys and set VOUCHER_ACCESS=auto, unless only those reach the service who may use it"
        what = f"none are asked for, and the service listens for other machines (on {settings.host})"
        yield Finding.warning("keys", what, remedy=remedy)
    else:
        if count is None:
            return  # what is wrong with the catalogue is told where it is looked at
        keys = "1 key opens something" if count == 1 else f"{count:,} keys open something"
        found = f"access {settings.access}, listening on {settings.host}, {keys}"
        if settings.access == "keys" and count == 0:
            remedy = "make a key with `voucher keys create --name NAME`"
            yield Finding.warning("keys", f"{found}: every request is refused", remedy=remedy)
        else:
            yield Finding.ok("keys", found)


def _metrics(settings: Settings) -> Iterator[Finding]:
    if settings.metrics == "open" and not is_loopback(settings.host):
        remedy = "set VOUCHER_METRICS_TOKEN and VOUCHER_METRICS=auto, unless a proxy keeps /metrics from others"
        yield Finding.warning("metrics", "whoever reaches the service may read /metrics", remedy=remedy)


def _traces(environment: Mapping[str, str]) -> Iterator[Finding]:
    if not wants_traces(environment):
        return
    try:
        found = importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ModuleNotFoundError:
        found = None
    if found is None:
        remedy = "install voucher[telemetry], or take the OTEL_ variables away"
        yield Finding.fault("traces", "are configured, but OpenTelemetry is not installed", remedy=remedy)
    else:
        yield Finding.ok("traces", "are sent where the OTEL_ variables say")


def _port(settings: Settings) -> Finding:
    """Whether the service could listen, or does so already."""
    where = f"{settings.host}, port {settings.port}"
    if settings.port == 0:
        return Finding.ok("port", "a free one is taken")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            if _is_voucher(settings):
                return Finding.ok("port", f"{where}: a voucher answers there")
            remedy = "set VOUCHER_PORT to a free one, or end the program that listens there"
            return Finding.fault("port", f"{where} cannot be listened on: {error.strerror or error}", remedy=remedy)
    return Finding.ok("port", f"{where} is free")


def _is_voucher(settings: Settings) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    shown = f"[{host}]" if ":" in host else host
    # Asked directly: a proxy of this environment is no way to this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{shown}:{settings.port}/healthz", timeout=_ASK_SECONDS) as answer:
            return bool(json.load(answer) == {"status": "alive"})
    except (OSError, ValueError, urllib.error.URLError):
        return False
