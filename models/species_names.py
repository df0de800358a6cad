"""Which species are meant by what people write: an identifier, or a scientific name with or without authors."""

from collections.abc import Iterable
from functools import lru_cache

from models.plain_text import comparable
from models.scientific_name import split_scientific_name
from models.taxonomy import Species


def species_meant(entries: Iterable[str], species: Iterable[Species]) -> dict[str, str]:
    """Each entry under the identifiers of the species that it means, and under itself when it means none.

    An entry is an identifier, which is compared exactly, or a scientific name with or without authors, whatever its
    case; a name may be that of several species.
    """
    species = list(species)
    known = {each.species_id for each in species}
    wanted = {entry: entry for entry in entries if entry in known}
    names: dict[str, list[str]] = {}
    for entry in entries:
        if entry not in known:
            names.setdefault(_name(entry), []).append(entry)
    beginnings = {_beginning(name) for name in names}
    meant: set[str] = set()
    for each in species if names else ():
        # Names are read in full only where they may be meant: a flora has hundreds of thousands.
        if _beginning(each.scientific_name) in beginnings and (name := _name(each.scientific_name)) in names:
            meant.add(name)
            wanted.setdefault(each.species_id, names[name][0])
    for name in names.keys() - meant:
        wanted.update((entry, entry) for entry in names[name])
    return wanted


@lru_cache(maxsize=65_536)
def _name(text: str) -> str:
    """The name without its authors, as names are compared; lists have them in capitals, too."""
    found = split_scientific_name(text)
    words = text.split()
    if len(found.without_author.split()) < 2 <= len(words) or found.genus is None:
        found = split_scientific_name(
            " ".join([*(w.capitalize() for w in words[:1]), *map(str.lower, words[1:2]), *words[2:]])
        )
    return comparable(found.without_author)


def _beginning(name: str) -> str:
    """The first word as it is compared, without a hybrid's sign, however that is written."""
    words = comparable(name.lstrip("×+ ")).split(maxsplit=2)
    return words[min(1, len(words) - 1) if words[0] == "x" else 0] if words else ""
