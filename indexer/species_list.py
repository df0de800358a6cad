"""A checklist in a file: which species an answer may be."""

from pathlib import Path

from models.errors import InvalidConfig

_SEPARATORS = ("\t", ";", ",")
_HEADS = ("species_id", "taxonid", "id", "species", "scientificname", "scientific_name", "name", "taxon")


def read_species_list(path: Path) -> list[str]:
    """Identifiers or scientific names of species, one a line; of a table its first column, with or without a head.

    Blank lines and those that begin with # are passed over. Raises `InvalidConfig`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidConfig(f"the species list {path} cannot be read: {why}") from error
    found = []
    for number, line in enumerate(text.splitlines()):
        cell = line
        for separator in _SEPARATORS:
            cell = cell.partition(separator)[0]
        cell = cell.strip().strip('"').strip()
        if cell and not cell.startswith("#") and not (number == 0 and cell.lower() in _HEADS):
            found.append(cell)
    if not found:
        raise InvalidConfig(
            f"the species list {path} names no species; expected an identifier or a scientific name on each line"
        )
    return found
