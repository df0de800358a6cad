"""Names of plants that do not exist."""

import numpy as np

_GENUS_STARTS = (
    "Quor", "Thalv", "Ombr", "Zephyl", "Vexill", "Mirab", "Nusqu", "Pseudol", "Harlequ", "Brumiv",
    "Ficti", "Lumivar", "Oblivi", "Phantasm", "Tessel", "Umbrav", "Wyndel", "Xanthor", "Yllav", "Drolum",
)  # fmt: skip
_GENUS_ENDS = ("inia", "opsia", "andra", "ella", "ymna", "ostria", "aria", "ula", "ora", "etra")
_EPITHETS = (
    "ficta", "simulata", "commenticia", "somnialis", "utopica", "chimaerica", "imaginaria", "fabulosa",
    "nusquamensis", "dubitata", "algorithmica", "seminalis", "larvata", "spectralis", "errata", "putativa",
    "incerta", "mendax", "apocrypha", "conjecta", "phantastica", "subdola", "invisa", "adumbrata",
    "delineata", "picta", "praetexta", "sublusa", "vanescens", "nugatoria",
)  # fmt: skip


def genus_names(count: int, rng: np.random.Generator) -> list[str]:
    """`count` different genus names; a numeral is added when the syllables run out."""
    starts, ends = rng.permutation(len(_GENUS_STARTS)), rng.permutation(len(_GENUS_ENDS))
    # Names next to one another differ in their beginning, which is what one reads.
    every = [
        _GENUS_STARTS[s] + _GENUS_ENDS[ends[(e + i) % len(ends)]]
        for e in range(len(ends))
        for i, s in enumerate(starts)
    ]
    return _numbered(every, count)


def family_names(genera: list[str], count: int) -> list[str]:
    """`count` family names, each after one of the `genera` as the custom is."""
    stems = (name.rstrip("0123456789").removesuffix("a").removesuffix("i") for name in genera)
    return list(dict.fromkeys(f"{stem}aceae" for stem in stems))[:count]


def epithets(count: int, rng: np.random.Generator) -> list[str]:
    """`count` different species epithets."""
    return _numbered([_EPITHETS[i] for i in rng.permutation(len(_EPITHETS))], count)


def _numbered(words: list[str], count: int) -> list[str]:
    rounds = -(-count // len(words))
    return [word if turn == 0 else f"{word}{turn + 1}" for turn in range(rounds) for word in words][:count]
