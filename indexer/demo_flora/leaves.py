"""Leaf traits → outlines and veins."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from indexer.demo_flora.geometry import Points, normals, resample, smooth, turn
from indexer.demo_flora.traits import LeafForm, LeafTraits, Margin, Venation

MARGIN_POINTS = 44
"""Points on one side of an entire margin."""


@dataclass(frozen=True)
class Blade:
    """A flat blade. `left` and `right` (N, 2) are its margins from base to tip; `veins` (M, 2) each."""

    left: Points
    right: Points
    veins: tuple[Points, ...]
    underside: bool = False


@dataclass(frozen=True)
class LeafShape:
    """A leaf from the foot of its stalk at (0, 0) along x; `stalks` are lines with a width."""

    blades: tuple[Blade, ...]
    stalks: tuple[tuple[Points, float], ...]

    @property
    def area(self) -> float:
        """Surface in leaf lengths squared; threads count with what they span at a glance."""
        blades = sum(enclosed(np.concatenate([blade.left, blade.right[::-1]])) for blade in self.blades)
        return float(blades + sum(np.hypot(*(line[-1] - line[0])) * width for line, width in self.stalks))


def enclosed(polygon: Points) -> float:
    """Area within a closed polygon (N, 2)."""
    x, y = polygon.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def leaf_shape(traits: LeafTraits, venation: Venation, petiole: float) -> LeafShape:
    """The leaf of `traits` behind a stalk of `petiole` leaf lengths; the blade is about 1 long."""
    plan = _COMPOUND.get(traits.form)
    if plan is not None:
        blades, stalks = plan(traits, venation)
    else:
        blades, stalks = (simple_blade(traits, venation),), ()
    away = np.array([petiole, 0.0])
    stalk = np.array([[0.0, 0.0], [petiole + 0.02, 0.0]])
    return LeafShape(
        blades=tuple(_moved(blade, lambda points: points + away) for blade in blades),
        stalks=((stalk, 0.022), *((line + away, width) for line, width in stalks)),
    )


def simple_blade(traits: LeafTraits, venation: Venation) -> Blade:
    """One undivided (perhaps lobed) blade from (0, 0) to about (1, 0)."""
    side = _OUTLINES[traits.form](traits)
    left = _with_margin(side, traits)
    # The two sides of a real margin never match tooth by tooth.
    right = _with_margin(side, traits, shift=0.5) * np.array([1.0, -1.0])
    return Blade(left, right, _veins(side, traits, venation))


def folded(shape: LeafShape, limit: float) -> LeafShape:
    """`shape` with its tip, from `limit` on, folded back over it; only undivided leaves fold."""
    if len(shape.blades) != 1 or not shape.blades[0].left[0, 0] < limit < shape.blades[0].left[-1, 0]:
        return shape
    blade = shape.blades[0]
    near = [line[line[:, 0] <= limit] for line in (blade.left, blade.right)]
    far = [line[line[:, 0] > limit] for line in (blade.left, blade.right)]
    if min(map(len, [*near, *far])) < 2:
        return shape
    back = [np.stack([2 * limit - line[:, 0], line[:, 1] + 0.12 * (line[:, 0] - limit)], axis=1) for line in far]
    rest = Blade(near[0], near[1], (np.array([blade.veins[0][0], [limit, 0.0]]),))
    crease = np.array([[limit, 0.0], (back[0][-1] + back[1][-1]) / 2])
    return LeafShape((rest, Blade(back[0], back[1], (crease,), underside=True)), shape.stalks)


def _plain_side(traits: LeafTraits) -> Points:
    """Half outline of an undivided leaf, base to tip, y ≥ 0."""
    at = np.linspace(0.0, 1.0, 80) ** 1.2
    below = np.clip((traits.widest - at) / traits.widest, 0.0, 1.0)
    above = np.clip((at - traits.widest) / (1.0 - traits.widest), 0.0, 1.0)
    width = np.where(
        at < traits.widest,
        np.cos(below * np.pi / 2) ** traits.base,
        np.cos(above * np.pi / 2) ** traits.apex,
    )
    width = np.clip(width, 0.0, 1.0) * traits.aspect / 2
    back = traits.heart * (width / (traits.aspect / 2)) * (1.0 - at) ** 4 * 1.6
    return np.stack([at - back, width], axis=1)


def _sagittate_side(traits: LeafTraits) -> Points:
    half = traits.aspect / 2
    back = 0.18 + traits.heart
    corners = np.array(
        [[0, 0.0], [-0.05, 0.06], [-back, half * 0.95], [-back * 0.3, half], [0.2, half * 0.62],
         [0.6, half * 0.4], [1.0, 0.0]]
    )  # fmt: skip
    return smooth(corners, 12)


def _fan_side(traits: LeafTraits) -> Points:
    spread = np.radians(35 + 50 * traits.aspect)
    along = np.linspace(0.0, 1.0, 30)
    ray = np.stack([along * np.cos(spread), along * np.sin(spread) * (0.75 + 0.25 * along)], axis=1) * 0.9
    angle = np.linspace(spread, 0.0, 50)
    notch = 1.0 - traits.depth * np.exp(-((angle / 0.16) ** 2))
    arc = np.stack([np.cos(angle) * notch, np.sin(angle) * notch], axis=1) * 0.95
    return np.concatenate([ray, arc])


def _palmate_side(traits: LeafTraits) -> Points:
    lobes = max(3, traits.parts | 1)
    reach = np.radians(34 + 11 * lobes)
    centres = np.linspace(-reach, reach, lobes)
    lengths = 0.62 + 0.38 * np.cos(centres * 0.75)
    angle = np.linspace(np.pi * 0.93, 0.0, 150)
    spacing = centres[1] - centres[0]
    offset = np.abs(angle[:, None] - centres[None, :]) / (spacing * (0.44 + 0.3 * traits.aspect))
    lobe = lengths * np.clip(1.0 - offset**1.25, 0.0, 1.0) ** (0.35 + 0.5 * traits.apex)
    floor = (1.0 - traits.depth) * 0.62 * np.clip(1.0 - (angle / np.pi) ** 6, 0.05, 1.0)
    radius = np.maximum(lobe.max(axis=1), floor)
    side = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return np.concatenate([[[0.0, 0.0]], side]) * 0.92


def _pinnate_side(traits: LeafTraits) -> Points:
    plain = resample(_plain_side(traits), 160)
    cycle = plain[:, 0] * (traits.parts + 0.5)
    sinus = (0.5 + 0.5 * np.cos(2 * np.pi * (cycle - 0.12))) ** 1.3
    width = plain[:, 1] * (1.0 - traits.depth * sinus * np.clip(2.2 - 2.2 * plain[:, 0] ** 3, 0, 1))
    forward = plain[:, 0] + 0.35 * (width - width.mean()) * np.clip(plain[:, 0] * 4, 0, 1)
    side = np.stack([forward, width], axis=1)
    side[-1] = (1.0, 0.0)
    return side


_OUTLINES: dict[LeafForm, Callable[[LeafTraits], Points]] = {
    LeafForm.SIMPLE: _plain_side,
    LeafForm.SAGITTATE: _sagittate_side,
    LeafForm.FAN: _fan_side,
    LeafForm.PALMATE_LOBED: _palmate_side,
    LeafForm.PINNATE_LOBED: _pinnate_side,
}


def _with_margin(side: Points, traits: LeafTraits, shift: float = 0.0) -> Points:
    """`side` with its teeth, base to tip."""
    if traits.margin is Margin.ENTIRE or traits.teeth == 0:
        return resample(side, 110 if traits.form in _CUT else MARGIN_POINTS)
    line = resample(side, max(MARGIN_POINTS, traits.teeth * 8))
    phase = np.linspace(0.0, traits.teeth, len(line)) + shift
    saw = phase % 1.0
    profile = {
        Margin.SERRATE: saw,
        Margin.CRENATE: np.abs(np.sin(np.pi * phase)) ** 0.7,
        Margin.SPINY: np.clip(1.0 - np.abs(saw - 0.5) * 5, 0.0, 1.0) * 1.3,
        Margin.UNDULATE: 0.5 + 0.5 * np.sin(2 * np.pi * phase),
    }[traits.margin]
    ends = np.clip(np.minimum(np.linspace(0, 1, len(line)) * 8, np.linspace(1, 0, len(line)) * 8), 0, 1)
    forward = np.array([0.5, 0.0]) * (traits.margin is Margin.SERRATE)
    push = (profile * ends * traits.tooth_depth)[:, None]
    return line + push * (normals(line) + forward)


_CUT = {LeafForm.PALMATE_LOBED, LeafForm.PINNATE_LOBED}


def _veins(side: Points, traits: LeafTraits, venation: Venation) -> tuple[Points, ...]:
    """Midrib first, then the side veins of both halves."""
    tip = float(side[-1, 0]) * 0.96
    midrib = np.array([[0.0, 0.0], [tip / 2, 0.0], [tip, 0.0]])
    half: list[Points] = []
    if traits.form in (LeafForm.FAN, LeafForm.PALMATE_LOBED) or venation is Venation.PALMATE:
        far = np.hypot(side[:, 0], side[:, 1])
        inner = far[1:-1]
        peaks = 1 + np.flatnonzero((inner >= far[:-2]) & (inner > far[2:]))
        wanted = peaks if traits.form is LeafForm.PALMATE_LOBED else np.linspace(18, len(side) - 12, 3).astype(int)
        half = [np.array([[0.0, 0.0], side[i] * 0.92]) for i in wanted]
    elif venation is Venation.PARALLEL:
        half = [side[3:-3:4] * np.array([1.0, f]) for f in (0.35, 0.68)]
    elif venation is Venation.ARCUATE:
        for start in (0.06, 0.2, 0.34):
            at = np.linspace(0.0, 1.0, 8)
            x = start + at * (0.92 - start * 0.4 - start)
            width = np.interp(x, side[:, 0], side[:, 1])
            half.append(np.stack([x, width * (0.78 - start) * np.sin(at * np.pi * 0.62)], axis=1))
    else:
        slope = 1.0 / np.tan(np.radians(traits.vein_angle_degrees))
        for start in np.linspace(0.1, 0.82, max(2, traits.vein_pairs)):
            beyond = side[:, 0] - start - side[:, 1] * slope
            hit = int(np.argmin(np.abs(beyond) + (side[:, 1] < 1e-3)))
            end = side[hit] * np.array([1.0, 0.88])
            foot = np.array([start, 0.0])
            half.append(np.stack([foot, (foot + end) / 2 + np.array([-0.01, 0.01]), end]))
    return (midrib, *half, *(line * np.array([1.0, -1.0]) for line in half))


def _moved(blade: Blade, move: Callable[[Points], Points]) -> Blade:
    return replace(
        blade, left=move(blade.left), right=move(blade.right), veins=tuple(move(vein) for vein in blade.veins)
    )


def _placed(blade: Blade, at: tuple[float, float], angle_radians: float, length: float) -> Blade:
    return _moved(blade, lambda points: turn(points * length, angle_radians) + np.array(at))


Plan = tuple[tuple[Blade, ...], tuple[tuple[Points, float], ...]]


def _leaflet(traits: LeafTraits, venation: Venation) -> Blade:
    fewer = replace(traits, form=LeafForm.SIMPLE, heart=0.0, teeth=min(traits.teeth, 7), vein_pairs=4)
    return simple_blade(fewer, venation)


def _trifoliate(traits: LeafTraits, venation: Venation) -> Plan:
    leaflet = _leaflet(traits, venation)
    spread = np.radians(78)
    blades = tuple(
        _placed(leaflet, at, angle, length)
        for at, angle, length in (((0.0, 0.0), spread, 0.62), ((0.0, 0.0), -spread, 0.62), ((0.12, 0.0), 0.0, 0.72))
    )
    return blades, ((np.array([[0.0, 0.0], [0.14, 0.0]]), 0.02),)


def _palmate_compound(traits: LeafTraits, venation: Venation) -> Plan:
    leaflet = _leaflet(traits, venation)
    count = max(5, traits.parts | 1)
    angles = np.linspace(-1.0, 1.0, count) * np.radians(112)
    return tuple(_placed(leaflet, (0.0, 0.0), a, 0.62 + 0.3 * float(np.cos(a * 0.8))) for a in angles), ()


def _pinnate_compound(traits: LeafTraits, venation: Venation) -> Plan:
    leaflet = _leaflet(traits, venation)
    pairs = max(2, traits.parts)
    length = min(0.46, 0.62 / pairs / max(traits.aspect, 0.24) + 0.08)
    blades = [
        _placed(leaflet, (x, 0.0), side * np.radians(66), length * (1.0 - 0.25 * x))
        for x in np.linspace(0.06, 0.8, pairs)
        for side in (1, -1)
    ]
    blades.append(_placed(leaflet, (0.84, 0.0), 0.0, length * 0.8))
    return tuple(blades), ((np.array([[0.0, 0.0], [0.86, 0.0]]), 0.018),)


def _dissected(traits: LeafTraits, venation: Venation) -> Plan:
    """Twice divided into threads; all of it is drawn as lines."""
    lines: list[tuple[Points, float]] = [(np.array([[0.0, 0.0], [1.0, 0.0]]), 0.03)]
    pairs = max(4, traits.parts)
    for x in np.linspace(0.1, 0.92, pairs):
        reach = (0.2 + 1.1 * x * (1.0 - x)) * (0.7 + 0.6 * traits.aspect)
        for side in (1, -1):
            foot = np.array([x, 0.0])
            branch = foot + turn(np.array([[0.0, 0.0], [reach, 0.0]]), side * np.radians(52))
            lines.append((branch, 0.028))
            for part in (0.35, 0.6, 0.82):
                fork = branch[0] + part * (branch[1] - branch[0])
                for tilt in (0.55, -0.55):
                    twig = turn(np.array([[0.0, 0.0], [reach * 0.34, 0.0]]), side * np.radians(52) + tilt)
                    lines.append((twig + fork, 0.026))
    return (), tuple(lines)


_COMPOUND: dict[LeafForm, Callable[[LeafTraits, Venation], Plan]] = {
    LeafForm.TRIFOLIATE: _trifoliate,
    LeafForm.PALMATE_COMPOUND: _palmate_compound,
    LeafForm.PINNATE_COMPOUND: _pinnate_compound,
    LeafForm.DISSECTED: _dissected,
}
