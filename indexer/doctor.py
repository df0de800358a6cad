"""`voucher doctor`: looks at the machine, the home and the installation, and says what to mend."""

import importlib.metadata
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from indexer import console
from indexer.options import DEFAULT_HOME, HomeOption, JsonOption
from models.errors import InvalidConfig, VoucherError
from models.findings import Finding, Severity
from models.home import Home

logger = logging.getLogger(__name__)

SETTINGS_CHECKS = "voucher.checks"
"""Entry points through which the service, another layer, has its settings examined."""

Check = Callable[[], Iterator[Finding]]

_SIGNS = {Severity.OK: "ok", Severity.WARNING: "warning", Severity.FAULT: "FAULT"}


def doctor_command(
    home: HomeOption = DEFAULT_HOME,
    device: Annotated[str, typer.Option(envvar="VOUCHER_DEVICE", help="auto, cpu or cuda:N.")] = "auto",
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Read every image, model and index, and the whole catalogue.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at the machine, the home and the installation, and say what to mend.

    It mends nothing by itself. Ends with status 1 when something does not work; warnings leave it at 0.
    """
    findings = []
    for finding in examine(home, device=device, thorough=thorough):
        findings.append(finding)
        if not as_json:
            _show(finding)
    faults = sum(finding.severity is Severity.FAULT for finding in findings)
    warnings = sum(finding.severity is Severity.WARNING for finding in findings)
    if as_json:
        console.show_json({"faults": faults, "warnings": warnings, "findings": [each.to_json() for each in findings]})
    else:
        console.output.print(f"{faults} faults, {warnings} warnings, {len(findings)} things looked at")
    if faults:
        raise typer.Exit(1)


def examine(root: Path, *, device: str = "auto", thorough: bool = False) -> Iterator[Finding]:
    """What is found, one thing after the other: the machine, the packages, the home and what it holds, the settings."""
    from indexer.doctor_artifacts import check_active_bundle, check_artifacts
    from indexer.doctor_catalogue import check_catalogue, check_images
    from indexer.doctor_home import check_disk, check_home
    from indexer.doctor_jobs import check_jobs
    from indexer.doctor_machine import check_clock, check_compute, check_machine
    from indexer.doctor_packages import check_packages
    from indexer.doctor_weights import check_weights

    yield from _all_of([("packages", check_packages), ("machine", check_machine)])
    try:
        home = console.home_of(root, may_be_new=True)
    except InvalidConfig as error:
        yield Finding.fault("database address", str(error), remedy=f"mend {console.DATABASE_VARIABLE}")
        home = Home(root)
    yield from _all_of(
        [
            ("device", lambda: check_compute(device)),
            ("clock", lambda: check_clock(home)),
            ("home", lambda: check_home(home)),
            ("disk", lambda: check_disk(home)),
            ("catalogue", lambda: check_catalogue(home, thorough=thorough)),
            ("images", lambda: check_images(home, thorough=thorough)),
            ("models and indexes", lambda: check_artifacts(home, thorough=thorough)),
            ("active bundle", lambda: check_active_bundle(home, device)),
            ("weights", lambda: check_weights(home)),
            ("jobs", lambda: check_jobs(home)),
            ("settings", lambda: _check_settings(root)),
        ]
    )


def _all_of(checks: Sequence[tuple[str, Check]]) -> Iterator[Finding]:
    """What all of them find; one that fails is a fault, and the others go on."""
    for name, check in checks:
        try:
            yield from check()
        except Exception as error:
            logger.debug("the check of %s failed", name, exc_info=True)
            told = str(error) if isinstance(error, (VoucherError, OSError)) else f"{type(error).__name__}: {error}"
            remedy = "mend what it says, or report it with the output of `voucher --verbose doctor`"
            yield Finding.fault(name, f"cannot be examined: {told}", remedy=remedy)


def _check_settings(root: Path) -> Iterator[Finding]:
    """What the service finds of its settings; it is another layer, and found as it is installed."""
    found = list(importlib.metadata.entry_points(group=SETTINGS_CHECKS))
    if not found:
        remedy = "install voucher again (`make setup`, or pip install of the same version)"
        yield Finding.warning("settings", "the service's settings cannot be examined", remedy=remedy)
    for entry in found:
        yield from entry.load()(root, os.environ)


def _show(finding: Finding) -> None:
    where = "" if finding.where is None else f"  [{finding.where}]"
    line = f"{_SIGNS[finding.severity]:8} {finding.name}: {finding.what}{where}"
    console.output.print(line, markup=False, soft_wrap=True)
    if finding.remedy is not None:
        console.output.print(f"{'':8} → {finding.remedy}", markup=False, soft_wrap=True)
