"""Small plane and space geometry on arrays of points."""

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def resample(line: Points, count: int) -> Points:
    """`count` points at equal distances along a polyline, ends included; (N, 2) → (count, 2)."""
    steps = np.hypot(*np.diff(line, axis=0).T)
    travelled = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.linspace(0.0, travelled[-1], count)
    return np.stack([np.interp(at, travelled, line[:, 0]), np.interp(at, travelled, line[:, 1])], axis=1)


def smooth(corners: Points, per_segment: int = 8) -> Points:
    """A Catmull-Rom curve through all `corners`; (N, 2) → ((N − 1) · per_segment + 1, 2)."""
    padded = np.concatenate([2 * corners[:1] - corners[1:2], corners, 2 * corners[-1:] - corners[-2:-1]])
    a, b, c, d = (padded[i : len(padded) - 3 + i, None] for i in range(4))
    t = np.linspace(0.0, 1.0, per_segment, endpoint=False)[None, :, None]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return np.concatenate([curve.reshape(-1, corners.shape[1]), corners[-1:]])


def normals(line: Points) -> Points:
    """Unit normals to the left of a polyline, one a point; (N, 2) → (N, 2)."""
    along = np.gradient(line, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    return across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)


def turn(points: Points, angle_radians: float) -> Points:
    """`points` (…, 2) turned anticlockwise about the origin."""
    c, s = np.cos(angle_radians), np.sin(angle_radians)
    return points @ np.array([[c, s], [-s, c]])


def unit(vector: Points) -> Points:
    """`vector` at length 1."""
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def rotation(yaw: float, pitch: float, roll: float) -> Points:
    """(3, 3) camera rotation; radians; x right, y up, z to the viewer."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_z @ about_x @ about_y
