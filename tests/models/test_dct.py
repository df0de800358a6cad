import numpy as np
import pytest
import torch
from scipy.fft import dctn

from models.dct import PatchDct
from models.errors import InvalidConfig


@pytest.mark.parametrize(("height", "width", "frequencies"), [(4, 4, 4), (5, 7, 3), (37, 37, 5), (1, 6, 1)])
def test_coefficients_are_the_low_corner_of_the_orthonormal_transform(
    height: int, width: int, frequencies: int
) -> None:
    tokens = np.random.default_rng(0).normal(size=(2, height * width, 3)).astype(np.float32)
    whole = dctn(tokens.reshape(2, height, width, 3), axes=(1, 2), type=2, norm="ortho")
    kept = [(u, v) for u in range(frequencies) for v in range(frequencies) if u + v < frequencies]
    kept.sort(key=lambda pair: (pair[0] + pair[1], pair[0]))
    transform = PatchDct(height, width, frequencies)
    assert transform.coefficients == len(kept)
    expected = np.concatenate([whole[:, u, v] for u, v in kept], axis=1)
    np.testing.assert_allclose(transform(torch.from_numpy(tokens)).numpy(), expected, atol=1e-4)


def test_the_first_coefficient_is_the_mean_token_times_the_root_of_the_grid() -> None:
    tokens = torch.randn(3, 20, 6)
    torch.testing.assert_close(PatchDct(4, 5, 1)(tokens), tokens.mean(dim=1) * 20**0.5)


def test_a_pattern_down_the_grid_stands_apart_from_one_across() -> None:
    ramp = torch.linspace(-1, 1, 4)[:, None].expand(4, 4)
    down, across = PatchDct(4, 4, 2)(torch.stack([ramp.flatten(), ramp.T.flatten()])[..., None])
    assert down[2].abs() > 1
    assert across[1].abs() > 1
    torch.testing.assert_close(down[[0, 1]], torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(across[[0, 2]], torch.zeros(2), atol=1e-6, rtol=0)


def test_the_transform_is_float32_under_autocast_and_has_no_state() -> None:
    transform = PatchDct(3, 3, 2)
    assert not transform.state_dict()
    tokens = torch.randn(2, 9, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(transform(tokens), transform(tokens.float()))
    assert transform(tokens.half()).dtype == torch.float32


@pytest.mark.parametrize("frequencies", [0, 4, -1])
def test_more_frequencies_than_patches_are_refused(frequencies: int) -> None:
    with pytest.raises(InvalidConfig, match="1 to 3 low frequencies"):
        PatchDct(3, 8, frequencies)


@pytest.mark.parametrize("shape", [(2, 10, 4), (9, 4)])
def test_tokens_of_another_grid_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        PatchDct(3, 3, 2)(torch.zeros(shape))
