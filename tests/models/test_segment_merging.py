import pytest

from models.segment_merging import FEWEST_ROWS, first_to_merge

N = 100 * FEWEST_ROWS


@pytest.mark.parametrize(
    ("rows", "living", "first"),
    [
        ([N], [N], None),
        ([10], [10], None),
        ([N, N // 4], [N, N // 4], None),
        ([N, N // 4 + 1], [N, N // 4 + 1], 0),
        ([N], [N - N // 5], None),
        ([N], [N - N // 5 - 1], 0),
        ([N, N // 10], [N, N // 10 - N // 50], None),
        ([N, N // 10], [N, N // 10 - N // 50 - 1], 1),
        ([N, N // 8, N // 32], [N, N // 8, N // 32], None),
        ([N, N // 8, N // 16], [N, N // 8, N // 16], 1),
        ([N, FEWEST_ROWS, 1], [N, FEWEST_ROWS, 1], None),
        ([N, FEWEST_ROWS - 1, 1], [N, FEWEST_ROWS - 1, 1], 1),
        ([FEWEST_ROWS - 1, 1], [FEWEST_ROWS - 1, 1], 0),
        ([], [], None),
    ],
)
def test_segments_are_merged_from_the_first_that_is_too_dead_or_too_closely_followed(rows, living, first):
    assert first_to_merge(rows, living) == first


def test_the_number_of_segments_and_the_copying_grow_with_the_logarithm():
    sizes, copied, most = [N], 0, 0
    for _ in range(2_000):
        sizes.append(50)
        if (first := first_to_merge(sizes, sizes)) is not None:
            merged = sum(sizes[first:])
            sizes, copied = [*sizes[:first], merged], copied + merged
        most = max(most, len(sizes))
    assert sum(sizes) == N + 100_000
    assert most <= 4
    assert copied < 60 * 100_000
