"""What can be set for the service: environment variables with the prefix VOUCHER_, or arguments."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from models.errors import InvalidConfig
from models.home import Home

PREFIX = "VOUCHER_"

OF_CLIENTS = frozenset({PREFIX + "API_KEY"})
"""Variables of the command line that asks a service; whoever has one set may start a service too."""

MEBIBYTE = 1024 * 1024

Seconds = Annotated[float, Field(gt=0, le=3600)]

_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")
_HOST_NAME = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")


def _separated(given: Any) -> Any:
    """Words of a text that are separated by commas; anything else as it is."""
    return tuple(word.strip() for word in given.split(",") if word.strip()) if isinstance(given, str) else given


def _host_names(given: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(name.lower().removesuffix(".") for name in given)
    # An address has no letter at the beginning of its last part.
    if not all(_HOST_NAME.fullmatch(name) and len(name) <= 253 for name in names):
        raise ValueError("expected host names such as images.example.org, without scheme, port, path and asterisks")
    return names


def _networks(given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(ipaddress.ip_network(each, strict=False)) for each in given)


def _origins(given: tuple[str, ...]) -> tuple[str, ...]:
    if not all(each == "*" or _ORIGIN.fullmatch(each) for each in given):
        raise ValueError("expected origins such as https://flora.example, without a path, or *")
    return given


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_separated)]
HostNames = Annotated[Names, AfterValidator(_host_names)]
Networks = Annotated[Names, AfterValidator(_networks)]
Origins = Annotated[Names, AfterValidator(_origins)]


class Settings(BaseSettings):
    """Settings of one service process; frozen, built once in the entry point by `load_settings`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    home: Path = Field(Path("voucher-home"), description="folder with catalogue, images and bundles")
    database_url: SecretStr | None = Field(None, description="PostgreSQL database; none: SQLite in the home")
    device: str = Field("auto", description="auto, cpu or cuda:N")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")

    access: Literal["auto", "keys", "open"] = Field(
        "auto", description="whether keys are needed; auto: not on this machine as long as there are none"
    )
    public_reading: bool = Field(True, description="whether species, sheets and images are shown without a key")
    trusted_proxies: Networks = Field(
        (), description="addresses and networks of proxies whose X-Forwarded-For and -Proto are believed, by commas"
    )
    cors_origins: Origins = Field((), description="pages that may read answers of /v1, separated by commas; *: all")
    log_format: Literal["text", "json"] = Field("text", description="lines of the log: text, or a JSON object each")

    max_photos: int = Field(5, ge=1, le=20, description="photos of one plant in one request")
    max_upload_bytes: int = Field(20 * MEBIBYTE, ge=1024, description="bytes of one photo")
    max_request_bytes: int = Field(
        50 * MEBIBYTE, ge=1024, description="bytes of one request body with images; others have 64 KiB"
    )
    max_buffered_bytes: int = Field(
        256 * MEBIBYTE, ge=1024, description="bytes of all uploads held in memory at one time"
    )
    max_pixels: int = Field(50_000_000, ge=4096, description="pixels of one photo")

    remote_image_hosts: HostNames = Field(
        (), description="hosts that /v2 fetches images from by URL, separated by commas; none: it fetches nothing"
    )
    remote_image_timeout_seconds: Seconds = Field(10.0, description="for all images of one request to be fetched")
    plantnet_projects: Names = Field(
        (), description="further names that /v2 takes for its one flora, separated by commas, e.g. weurope"
    )
    public_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s?#]+$",
        description="address at which clients reach the service, for links in /v2; none: as each request says",
    )

    queue_limit: int = Field(32, ge=1, le=10_000, description="identifications in work or waiting")
    max_batch: int = Field(16, ge=1, le=1024, description="photos that the network sees at one time")
    batch_wait_seconds: float = Field(
        0.005, ge=0, le=1, description="how long a batch waits for photos that are being decoded"
    )
    workers: int = Field(1, ge=1, le=64, description="serving processes that share the home and the port")
    cpu_threads: int | None = Field(
        None, ge=1, le=1024, description="threads of the network on a CPU, each process; none: its share of the cores"
    )
    decode_workers: int | None = Field(
        None, ge=1, le=64, description="photos that each process decodes at one time; none: by its share of the cores"
    )
    request_timeout_seconds: Seconds = Field(60.0, description="from the whole upload to its answer")
    body_timeout_seconds: Seconds = Field(
        60.0, description="for the whole body to arrive, and for a client to take more of its answer"
    )
    header_timeout_seconds: Seconds = Field(10.0, description="for the whole request head to arrive")
    shutdown_timeout_seconds: Seconds = Field(20.0, description="for running requests when stopping")

    explanations: bool = Field(True, description="whether identifications may ask for heat maps (explain=true)")
    explanation_seconds: float = Field(3600.0, ge=60, le=7 * 86_400, description="how long heat maps are kept")
    explanation_max_bytes: int = Field(256 * MEBIBYTE, ge=MEBIBYTE, description="bytes of all heat maps on disk")
    keep_photos: bool = Field(False, description="whether photos sent to be identified are kept below the home")
    kept_photos_max_bytes: int = Field(10 * 1024 * MEBIBYTE, ge=MEBIBYTE, description="bytes of all such photos")

    batch_photos: int = Field(1000, ge=1, le=100_000, description="photos of one batch that is sent to /v1/batches")
    batch_upload_bytes: int = Field(1024 * MEBIBYTE, ge=1024, description="bytes of one such batch, also unpacked")
    batch_upload_seconds: Seconds = Field(900.0, description="for the whole body of one such batch to arrive")
    batch_jobs: int = Field(20, ge=1, le=10_000, description="such batches that wait or are worked on")
    batch_keep_hours: float = Field(72.0, gt=0, le=8760, description="how long the results of such a batch are kept")

    metrics: Literal["auto", "open", "off"] = Field(
        "auto", description="who may read /metrics; auto: this machine, and who shows the token"
    )
    metrics_token: SecretStr | None = Field(
        None, min_length=16, description="bearer token that opens /metrics; none: no token does"
    )

    worker: bool = Field(True, description="start a worker for index builds beside the service")
    auto_build_seconds: Seconds | None = Field(
        None, description="build by itself so long after the last change; none: when asked"
    )
    max_event_streams: int = Field(64, ge=1, le=10_000, description="clients that follow jobs at one time")


def home_of(settings: Settings) -> Home:
    """The home to serve, with its database. Raises `InvalidConfig` for a database URL of another kind."""
    url = settings.database_url
    return Home(settings.home, url.get_secret_value() or None if url is not None else None)


def load_settings(**given: Any) -> Settings:
    """Settings from `given` (a value of None is left out) and, for the rest, from the environment.

    Raises `InvalidConfig` for a value out of its range and for a VOUCHER_ variable that does not exist,
    which is most often a typing mistake that would otherwise be ignored in silence.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields} | OF_CLIENTS
    unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise InvalidConfig(f"unknown environment variable {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        # The rejected value is left out: a variable can hold a secret.
        faults = "; ".join(
            f"{PREFIX}{str(fault['loc'][0]).upper() if fault['loc'] else ''}: {fault['msg']}"
            for fault in error.errors()
        )
        raise InvalidConfig(f"a setting is not valid: {faults}") from None
