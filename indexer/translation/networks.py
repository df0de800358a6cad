"""The three networks of CUT: the generator, the patch discriminator, and the heads that patches are compared with."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.errors import InvalidConfig

_HEAD_WIDTH = 256
_WEIGHT_GAIN = 0.02
_BINOMIAL = (1.0, 2.0, 1.0)


class BlurDown(nn.Module):
    """Halves both sides, rounded up, behind a binomial low-pass.

    Source: Zhang 2019, "Making Convolutional Networks Shift-Invariant Again".
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor(_BINOMIAL)
        square = torch.outer(line, line) / line.sum() ** 2
        self.register_buffer("kernel", square.expand(channels, 1, 3, 3).clone(), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """``(B, C, H, W)`` → ``(B, C, ceil(H / 2), ceil(W / 2))``."""
        padded = functional.pad(pixels, (1, 1, 1, 1), mode="reflect")
        return functional.conv2d(padded, self.kernel.to(padded.dtype), stride=2, groups=pixels.shape[1])


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with instance normalisation, added to what came in (He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1),
            *_normalised(nn.Conv2d(channels, channels, 3)),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` → the same."""
        return features + self.body(features)


class Generator(nn.Module):
    """Sheets ``(B, 3, H, W)`` in −1 … 1 to drawings of the same shape and range; sides of 8 pixels or more.

    The ResNet generator of Johnson et al. 2016 with anti-aliased resampling, as in CUT. Its encoder is cut into named
    stages, whose outputs are the features that PatchNCE compares: ``pixels``, ``down1`` and ``down2`` (the
    convolutions before each halving), ``block1`` … ``blockN``.
    """

    def __init__(self, base_channels: int, residual_blocks: int) -> None:
        super().__init__()
        c = base_channels
        self.residual_blocks = residual_blocks
        self.encoder = nn.ModuleDict(
            {
                "pixels": nn.Identity(),
                "stem": nn.Sequential(nn.ReflectionPad2d(3), *_normalised(nn.Conv2d(3, c, 7))),
                "down1": nn.Conv2d(c, 2 * c, 3, padding=1),
                "shrink1": nn.Sequential(nn.InstanceNorm2d(2 * c), nn.ReLU(), BlurDown(2 * c)),
                "down2": nn.Conv2d(2 * c, 4 * c, 3, padding=1),
                "shrink2": nn.Sequential(nn.InstanceNorm2d(4 * c), nn.ReLU(), BlurDown(4 * c)),
                **{f"block{i + 1}": ResidualBlock(4 * c) for i in range(residual_blocks)},
            }
        )
        # Bilinear doubling is the transposed convolution with the binomial kernel 1 3 3 1 that CUT uses.
        self.decoder = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear"),
            *_normalised(nn.Conv2d(4 * c, 2 * c, 3, padding=1)),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            *_normalised(nn.Conv2d(2 * c, c, 3, padding=1)),
            nn.ReflectionPad2d(3),
            nn.Conv2d(c, 3, 7),
            nn.Tanh(),
        )
        self.apply(_initialise)

    def layers(self, wanted: Sequence[str] | None) -> tuple[str, ...]:
        """Names of the stages to compare, in their order; None stands for CUT's: the pixels, both convolutions before
        a halving, the first and the middle block.

        Raises `InvalidConfig`.
        """
        if wanted is None:
            wanted = ("pixels", "down1", "down2", "block1", f"block{(self.residual_blocks + 1) // 2}")
        unknown = sorted(set(wanted) - set(self.encoder)) or ([] if wanted else ["nothing"])
        if unknown:
            raise InvalidConfig(
                f"translation.nce_layers names {', '.join(unknown)}; with {self.residual_blocks} residual blocks there "
                f"are {', '.join(self.encoder)}"
            )
        return tuple(name for name in self.encoder if name in wanted)

    def channels(self, layers: Sequence[str]) -> list[int]:
        """Channels of each of these stages."""
        base = self.encoder["down1"]
        assert isinstance(base, nn.Conv2d)
        known = {"pixels": 3, "stem": base.in_channels, "down1": base.out_channels, "shrink1": base.out_channels}
        return [known.get(name, 2 * base.out_channels) for name in layers]

    def forward(self, sheets: Tensor) -> Tensor:
        """The drawings."""
        return self.draw(sheets, ())[0]

    def draw(self, sheets: Tensor, layers: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
        """The drawings, and what the stages `layers` gave on the way."""
        encoded, features = self._encode(sheets, layers, whole=True)
        # Sides that are no multiple of four came out rounded up.
        drawn = self.decoder(encoded)[..., : sheets.shape[-2], : sheets.shape[-1]]
        return drawn, features

    def features(self, pixels: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """What the stages `layers`, in their order, give for pictures; those behind the last are not run."""
        return self._encode(pixels, layers, whole=False)[1]

    def _encode(self, pixels: Tensor, layers: Sequence[str], *, whole: bool) -> tuple[Tensor, list[Tensor]]:
        found: list[Tensor] = []
        for name, stage in self.encoder.items():
            if not whole and len(found) == len(layers):
                break
            pixels = stage(pixels)
            if name in layers:
                found.append(pixels)
        return pixels, found


class PatchDiscriminator(nn.Module):
    """Pictures ``(B, 3, H, W)`` to a map ``(B, 1, h, w)``: how much each patch looks like one of a photo.

    PatchGAN (Isola et al. 2017) with three anti-aliased halvings, as in CUT; sides of 32 pixels or more.
    """

    def __init__(self, base_channels: int) -> None:
        super().__init__()
        c = base_channels
        self.body = nn.Sequential(
            nn.Conv2d(3, c, 4, padding=1),
            nn.LeakyReLU(0.2),
            BlurDown(c),
            *_halving(c, 2 * c),
            *_halving(2 * c, 4 * c),
            nn.Conv2d(4 * c, 8 * c, 4, padding=1),
            nn.InstanceNorm2d(8 * c),
            nn.LeakyReLU(0.2),
            nn.Conv2d(8 * c, 1, 4, padding=1),
        )
        self.apply(_initialise)

    def forward(self, pixels: Tensor) -> Tensor:
        """The map."""
        return self.body(pixels)


class PatchHeads(nn.Module):
    """Features at sampled positions to unit vectors, by a two-layer perceptron a layer (H_l of the paper, eq. 3)."""

    def __init__(self, channels: Sequence[int], width: int = _HEAD_WIDTH) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(c, width), nn.ReLU(), nn.Linear(width, width)) for c in channels
        )
        self.apply(_initialise)

    def forward(self, features: Sequence[Tensor], positions: Sequence[Tensor]) -> list[Tensor]:
        """``(B, S, width)`` float32 of each ``(B, C, H, W)`` at its ``(S,)`` positions, which count row by row."""
        embedded = []
        for head, layer, chosen in zip(self.heads, features, positions, strict=True):
            sampled = layer.flatten(2)[:, :, chosen].transpose(1, 2)
            embedded.append(functional.normalize(head(sampled).float(), dim=-1))
        return embedded


def _normalised(convolution: nn.Conv2d) -> tuple[nn.Module, ...]:
    return convolution, nn.InstanceNorm2d(convolution.out_channels), nn.ReLU()


def _halving(channels: int, out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, out, 4, padding=1), nn.InstanceNorm2d(out), nn.LeakyReLU(0.2), BlurDown(out)


def _initialise(module: nn.Module) -> None:
    """As CUT begins: Xavier's normal weights times 0.02, normal 0.02 in the heads, biases of zero."""
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_normal_(module.weight, gain=_WEIGHT_GAIN)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=_WEIGHT_GAIN)
    else:
        return
    assert module.bias is not None
    nn.init.zeros_(module.bias)
