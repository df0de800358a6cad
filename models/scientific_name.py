"""Splits a scientific name from its authorship. Pure; botanical names (ICN), as checklists and labels write them."""

import re
from dataclasses import dataclass


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_HYBRID_SIGNS = {"×": "×", "x": "×", "X": "×", "+": "+"}
"""And how they are written; the plus is of graft chimaeras."""

_RANKS_BELOW_SPECIES = _words(
    "subsp. ssp. subsp ssp var. var subvar. convar. f. fo. forma form. subf. nothosubsp. nothovar. nothof. "
    "cv. lusus prol. monstr. f.sp."
)
_RANKS_BELOW_GENUS = _words("subg. subgen. sect. subsect. ser. subser. nothosect. nothosubg.")

_QUALIFIERS = _words("cf. cf aff. aff nr. prope")
"""Before an epithet: the identification is not certain."""

_INSTEAD_OF_EPITHETS = _words("sp. sp spp. spp nov.")

_OF_WIDER_OR_NARROWER_SENSE = _words("agg. agg s.l. s.str.")
"""After the authors, and still part of the name."""

_WORDS_OF_AUTHORS = _words(
    "de da do das dos del della des den der di du la le ten ter van von vom zu zum zur af y e et and "
    "ex in filius al non nec bis"
)
"""Words without a capital or a dot that belong to authors."""

_QUOTED = re.compile(r"['‘\"“][^'‘’\"“”]+['’\"”]")
_WORD = re.compile(rf"{_QUOTED.pattern}(?=\s|$)|\S+")


@dataclass(frozen=True, slots=True)
class ScientificName:
    """A name in two parts; `authorship` is empty where none is given, or none applies (autonyms, hybrid formulas).

    `genus` is the first word without a hybrid sign, None where the text is no scientific name.
    """

    without_author: str
    authorship: str
    genus: str | None


def split_scientific_name(text: str) -> ScientificName:
    """Name and authorship of `text`, such as ``Costus arabicus`` and ``L.``

    The authorship is that of the lowest taxon: authors in the middle of a name (``Viola alba Besser subsp.
    dehnhardtii (Ten.) W.Becker``) are left out of both parts. Spaces are made single, hybrid signs stand apart. A
    text that does not begin with a genus is all name.
    """
    words = _WORD.findall(text)
    reader = _Reader([part for word in words for part in _without_glue(word)])
    if not reader.read_genus():
        return ScientificName(" ".join(words), "", None)
    reader.read_rest()
    return ScientificName(" ".join(reader.name), " ".join(reader.authors), reader.genus)


def _without_glue(word: str) -> list[str]:
    return ["×", word[1:]] if word[0] == "×" and len(word) > 1 else [word]


class _Reader:
    """Goes through the words of a name and sorts them into the name and the authors of its last part."""

    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._next = 0
        self._has_epithet = False
        self._is_formula = False
        self.genus: str | None = None
        self.name: list[str] = []
        self.authors: list[str] = []

    def read_genus(self) -> bool:
        """Whether there is one; nothing is read where there is none."""
        start = 1 if self._words and self._words[0] in _HYBRID_SIGNS else 0
        if start == len(self._words) or not _is_genus(self._words[start]):
            return False
        self.genus = self._words[start]
        self.name = [*(_HYBRID_SIGNS[sign] for sign in self._words[:start]), self.genus]
        self._next = start + 1
        return True

    def read_rest(self) -> None:
        """Everything after the genus."""
        while self._next < len(self._words):
            word = self._words[self._next]
            if self._begins_lower_taxon(word):
                # Authors that were met belong to a higher taxon.
                self.authors = []
                self._take(2)
                self._has_epithet = True
            elif word in _HYBRID_SIGNS and self._next + 1 < len(self._words):
                self._read_hybrid(_HYBRID_SIGNS[word])
            elif self._belongs_to_name(word):
                self._take(1)
            else:
                self.authors.append(word)
                self._next += 1
        if self._is_formula:
            self.authors = []

    def _take(self, count: int) -> None:
        self.name += self._words[self._next : self._next + count]
        self._next += count

    def _begins_lower_taxon(self, word: str) -> bool:
        following = self._words[self._next + 1] if self._next + 1 < len(self._words) else ""
        if word.lower() in _RANKS_BELOW_GENUS:
            return _is_genus(following)
        # “L. f.” is the younger Linnaeus, “L. f. alba” a form.
        return word.lower() in _RANKS_BELOW_SPECIES and _is_epithet(following) and following not in _WORDS_OF_AUTHORS

    def _read_hybrid(self, sign: str) -> None:
        """The sign before a hybrid's epithet, or between the parents of a formula."""
        self._is_formula = self._is_formula or self._has_epithet
        self.authors = []
        self.name.append(sign)
        self._next += 1
        if _is_genus(self._words[self._next]):
            self._take(1)
        self._has_epithet = False

    def _belongs_to_name(self, word: str) -> bool:
        if word in _OF_WIDER_OR_NARROWER_SENSE or _QUOTED.fullmatch(word):
            return True
        if self.authors:
            return False
        if word in _QUALIFIERS or word in _INSTEAD_OF_EPITHETS:
            return True
        # A third word without a rank is no botanical custom, but is written; a particle begins an author.
        is_next = _is_epithet(word) and not (self._has_epithet and word in _WORDS_OF_AUTHORS)
        self._has_epithet = self._has_epithet or is_next
        return is_next


def _is_genus(word: str) -> bool:
    # Invented and provisional genera are numbered.
    letters = word.rstrip("0123456789").replace("-", "")
    return len(letters) > 1 and letters.isalpha() and letters[0].isupper() and letters[1:].islower()


def _is_epithet(word: str) -> bool:
    letters = word
    for mark in "-'’0123456789":
        letters = letters.replace(mark, "")
    return len(letters) > 1 and letters.isalpha() and letters.islower() and word[0].isalpha() and word[-1].isalnum()
