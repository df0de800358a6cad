"""The console command `voucher serve`."""

from pathlib import Path
from typing import Annotated

import typer

from models.errors import VoucherError

AUTO_BUILD_SECONDS = 60.0


def serve_command(
    home: Annotated[
        Path, typer.Option(envvar="VOUCHER_HOME", help="Folder with the catalogue, images and bundles.")
    ] = Path("voucher-home"),
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one. [default: 8000]")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda:N. [default: auto]")] = None,
    worker: Annotated[
        bool | None,
        typer.Option(
            "--worker/--no-worker", help="Run a worker for index builds beside the service. [default: worker]"
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Serving processes that share the port. [default: 1]")
    ] = None,
    listening: Annotated[int | None, typer.Option(hidden=True, min=0)] = None,
    auto: Annotated[
        bool, typer.Option("--auto", help="Build a minute after the last change of the catalogue, without being asked.")
    ] = False,
) -> None:
    """Serve the web page and the HTTP API.

    The active bundle of the home is loaded when the service starts, and followed when another is activated. Limits
    are set with VOUCHER_ environment variables, e.g. VOUCHER_MAX_UPLOAD_BYTES.
    """
    # Loaded here, since the other commands of the console script need neither a web server nor networks.
    from app.settings import home_of, load_settings

    try:
        settings = load_settings(home=home, host=host, port=port, device=device, worker=worker, workers=workers)
        home_of(settings).require()
        if auto and settings.auto_build_seconds is None:
            settings = settings.model_copy(update={"auto_build_seconds": AUTO_BUILD_SECONDS})
        if listening is None and settings.workers > 1:
            from app.serving_processes import serve_in_processes

            serve_in_processes(settings, _announce)
        else:
            from app.metrics_space import reserve_for_this_process

            if listening is not None and (complaint := reserve_for_this_process()) is not None:
                typer.echo(f"voucher serve: {complaint}", err=True)
            from app.serve import serve

            serve(settings, _announce, listening=listening)
    except VoucherError as error:
        typer.echo(f"voucher serve: {error}", err=True)
        raise typer.Exit(2) from None


def _announce(address: str) -> None:
    typer.echo(f"voucher is at {address}  (Ctrl-C stops it)")
