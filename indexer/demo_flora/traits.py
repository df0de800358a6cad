"""What tells one invented species from another: shape, and nothing but shape.

Colour, size in pixels, light and paper are never traits; the renderers draw them for every image anew.
"""

from dataclasses import dataclass
from enum import StrEnum


class LeafForm(StrEnum):
    """The plan that a leaf is built on."""

    SIMPLE = "simple"
    SAGITTATE = "sagittate"
    FAN = "fan"
    PALMATE_LOBED = "palmate-lobed"
    PINNATE_LOBED = "pinnate-lobed"
    TRIFOLIATE = "trifoliate"
    PALMATE_COMPOUND = "palmate-compound"
    PINNATE_COMPOUND = "pinnate-compound"
    DISSECTED = "dissected"


class Margin(StrEnum):
    """The edge of a leaf."""

    ENTIRE = "entire"
    SERRATE = "serrate"
    CRENATE = "crenate"
    SPINY = "spiny"
    UNDULATE = "undulate"


class Venation(StrEnum):
    """How the veins of a leaf run."""

    PINNATE = "pinnate"
    PALMATE = "palmate"
    PARALLEL = "parallel"
    ARCUATE = "arcuate"


class Arrangement(StrEnum):
    """How leaves stand on the stem."""

    ALTERNATE = "alternate"
    OPPOSITE = "opposite"
    WHORLED = "whorled"
    ROSETTE = "rosette"


class Inflorescence(StrEnum):
    """How flowers stand on the plant."""

    SOLITARY = "solitary"
    RACEME = "raceme"
    SPIKE = "spike"
    UMBEL = "umbel"
    CAPITULUM = "capitulum"
    AXILLARY = "axillary"


class PetalShape(StrEnum):
    """The outline of one petal."""

    ROUND = "round"
    NARROW = "narrow"
    NOTCHED = "notched"
    POINTED = "pointed"


@dataclass(frozen=True, slots=True)
class LeafTraits:
    """A leaf, in units of its own length.

    `aspect` is width over length, `widest` the position of the greatest width from base (0) to tip (1).
    `base` and `apex` are exponents: 0.4 blunt, 1 wedge-shaped, 1.6 drawn out. `heart` is how far the base
    runs back beside the stalk. `parts` counts lobes, leaflets or pairs of them; `depth` is how deep the
    lobes are cut (0–1). `teeth` are counted on one side, `tooth_depth` is in leaf lengths.
    """

    form: LeafForm
    aspect: float
    widest: float
    base: float
    apex: float
    heart: float
    parts: int
    depth: float
    margin: Margin
    teeth: int
    tooth_depth: float
    vein_pairs: int
    vein_angle_degrees: float


@dataclass(frozen=True, slots=True)
class HabitTraits:
    """The build of the plant; what the species of a genus have in common.

    `leaf_length` and `petiole` are in stem lengths and leaf lengths. `leaves_per_node` counts for whorls
    only. `divergence_degrees` is the angle between stem and leaf.
    """

    arrangement: Arrangement
    venation: Venation
    inflorescence: Inflorescence
    nodes: int
    leaves_per_node: int
    leaf_length: float
    petiole: float
    divergence_degrees: float


@dataclass(frozen=True, slots=True)
class FlowerTraits:
    """A flower; `size` is its radius in stem lengths where a flower stands alone."""

    petals: int
    petal_shape: PetalShape
    size: float
    count: int


@dataclass(frozen=True, slots=True)
class SpeciesTraits:
    """All that is inherited."""

    habit: HabitTraits
    leaf: LeafTraits
    flower: FlowerTraits
