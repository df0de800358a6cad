"""Findings of `voucher doctor`, as tests look at them."""

from collections.abc import Iterable

from models.findings import Finding, Severity


def bad(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    """Name and severity of what is not well; every one says how to mend it."""
    found = [finding for finding in findings if finding.severity is not Severity.OK]
    assert all(finding.remedy for finding in found)
    return [(finding.name, finding.severity.value) for finding in found]


def told(findings: Iterable[Finding]) -> str:
    """Everything that they say."""
    return " ".join(f"{finding.what} {finding.where} {finding.remedy}" for finding in findings)
