"""What can be set for the service: environment variables with the prefix VOUCHER_, or arguments."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.errors import InvalidConfig
from models.home import Home

PREFIX = "VOUCHER_"

MEBIBYTE = 1024 * 1024

Seconds = Annotated[float, Field(gt=0, le=3600)]


class Settings(BaseSettings):
    """Settings of one service process; frozen, built once in the entry point by `load_settings`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    home: Path = Field(Path("voucher-home"), description="folder with catalogue, images and bundles")
    database_url: SecretStr | None = Field(None, description="PostgreSQL database; none: SQLite in the home")
    device: str = Field("auto", description="auto, cpu or cuda:N")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")

    curation: Literal["auto", "on", "off"] = Field(
        "auto", description="whether the collection can be changed over HTTP; auto: on this machine only"
    )

    max_photos: int = Field(5, ge=1, le=20, description="photos of one plant in one request")
    max_upload_bytes: int = Field(20 * MEBIBYTE, ge=1024, description="bytes of one photo")
    max_request_bytes: int = Field(50 * MEBIBYTE, ge=1024, description="bytes of one request body")
    max_buffered_bytes: int = Field(
        256 * MEBIBYTE, ge=1024, description="bytes of all uploads held in memory at one time"
    )
    max_pixels: int = Field(50_000_000, ge=4096, description="pixels of one photo")

    queue_limit: int = Field(32, ge=1, le=10_000, description="identifications in work or waiting")
    decode_workers: int = Field(2, ge=1, le=64, description="photos that are decoded at one time")
    request_timeout_seconds: Seconds = Field(60.0, description="from the whole upload to its answer")
    body_timeout_seconds: Seconds = Field(60.0, description="for the whole body to arrive")
    header_timeout_seconds: Seconds = Field(10.0, description="for the whole request head to arrive")
    shutdown_timeout_seconds: Seconds = Field(20.0, description="for running requests when stopping")

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
    known = {PREFIX + name.upper() for name in Settings.model_fields}
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
