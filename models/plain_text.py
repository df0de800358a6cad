"""Text that people give with a change: checked before it is stored, since it is shown to others."""

import unicodedata

from models.errors import InvalidSheetDetails

MAX_CURATOR = 200

_REFUSED = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Control characters, line ends, lone surrogates, and marks that turn the direction of what follows."""

_JOINERS = "\u200c\u200d"
"""Invisible, but part of how some scripts are written."""


def plain_text(name: str, given: str, *, most: int) -> str:
    """`given` in Unicode's composed form, trimmed, of one line and at most `most` characters.

    Raises `InvalidSheetDetails`, which names the field and does not repeat the value.
    """
    text = unicodedata.normalize("NFC", given).strip()
    if len(text) > most:
        raise InvalidSheetDetails(f"{name}: expected at most {most} characters, found {len(text)}")
    if any(unicodedata.category(sign) in _REFUSED and sign not in _JOINERS for sign in text):
        raise InvalidSheetDetails(f"{name}: expected one line of plain text, found control characters")
    return text


def optional_text(name: str, given: str | None, *, most: int) -> str | None:
    """As `plain_text`; None for nothing or blanks."""
    return None if given is None else plain_text(name, given, most=most) or None


def required_text(name: str, given: str, *, most: int) -> str:
    """As `plain_text`. Raises `InvalidSheetDetails` also for nothing or blanks."""
    text = plain_text(name, given, most=most)
    if not text:
        raise InvalidSheetDetails(f"{name}: expected a value, found nothing")
    return text


def curator_name(given: str) -> str:
    """Who does something, for the catalogue's history. Raises `InvalidSheetDetails`."""
    return required_text("curator", given, most=MAX_CURATOR)


def comparable(name: str) -> str:
    """A name without the differences that make no other species: case, composition and runs of blanks."""
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())
