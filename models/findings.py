"""What an examination of an installation finds."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    """works, but not as well or as safely as it could"""
    FAULT = "fault"
    """something does not work"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: its `name`, what was found, where, and how to mend it.

    Neither text holds a password or a key.
    """

    name: str
    severity: Severity
    what: str
    where: str | None = None
    remedy: str | None = None

    @classmethod
    def ok(cls, name: str, what: str, where: object = None) -> "Finding":
        """All is well."""
        return cls(name, Severity.OK, what, None if where is None else str(where))

    @classmethod
    def warning(cls, name: str, what: str, *, remedy: str, where: object = None) -> "Finding":
        """It works, but could be better."""
        return cls(name, Severity.WARNING, what, None if where is None else str(where), remedy)

    @classmethod
    def fault(cls, name: str, what: str, *, remedy: str, where: object = None) -> "Finding":
        """It does not work."""
        return cls(name, Severity.FAULT, what, None if where is None else str(where), remedy)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "severity": self.severity.value,
            "what": self.what,
            "where": self.where,
            "remedy": self.remedy,
        }
