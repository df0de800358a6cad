"""When segments of a gallery are written together, so that neither they nor their dead rows pile up. Pure.

Largest first, each segment holds at least four times what follows it: their number grows with the logarithm of the
sheets (the logarithmic method, Bentley and Saxe 1980, §2), and a sheet is copied a logarithmic number of times in all.
"""

from collections.abc import Sequence

MOST_DEAD = 0.20
"""Of a segment's rows: above, searches read too much that they leave out."""
MOST_FOLLOWING = 0.25
"""Living rows after a segment, of its own: above, too much is searched without its index."""
FEWEST_ROWS = 4_096
"""A smaller segment is written anew with what follows: cheaper than a file more, some 6 MB of 384 dimensions."""


def first_to_merge(rows: Sequence[int], living: Sequence[int]) -> int | None:
    """Position from which on all segments are to become one, or None if all may stay.

    `rows` and `living` count the rows of the segments and those that are not dead, the largest segment first.
    """
    following = sum(living)
    for position, (all_rows, alive) in enumerate(zip(rows, living, strict=True)):
        following -= alive
        too_dead = all_rows - alive > MOST_DEAD * all_rows
        followed = following > MOST_FOLLOWING * alive or (following > 0 and alive < FEWEST_ROWS)
        if too_dead or followed:
            return position
    return None
