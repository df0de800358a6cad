"""One TOML file says how a run goes; the resolved copy is saved beside its results."""

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from models.errors import InvalidConfig


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BackboneConfig(_Section):
    """Which network, at which size, and how much of it is fine-tuned."""

    name: str = "vit_base_patch14_reg4_dinov2.lvd142m"
    weights: Path | None = Field(None, description="local .safetensors or checkpoint; none: from the timm hub")
    pretrained: bool = Field(True, description="false: start from random weights (use [warmup])")
    image_size: int | None = Field(None, ge=16, description="pixels; none: the network's own")
    last_blocks: int = Field(5, ge=1)
    crop: Literal["center", "squash", "letterbox"] = "center"
    statistics: Literal["fixed", "image"] = Field("fixed", description="image: by each picture's own; random weights")
    features: Literal["pooled", "class+dct"] = Field("pooled", description="what the specialist sees")
    dct_frequencies: int = Field(4, ge=1, description="low frequencies of the patch tokens in class+dct")
    arguments: dict[str, Any] = Field(default_factory=dict, description="passed on to timm.create_model")

    @field_validator("weights")
    @classmethod
    def _wherever_it_is_read(cls, weights: Path | None) -> Path | None:
        # A run is looked at and resumed from other folders, too.
        return None if weights is None else weights.absolute()


class HeadsConfig(_Section):
    """Sizes of the generalist's projection head."""

    projection_hidden: int = Field(512, ge=1)
    projection_dimensions: int = Field(256, ge=2)


class SplitConfig(_Section):
    """How photos and sheets are divided where the catalogue does not say."""

    validation_fraction: float = Field(0.15, ge=0.0, lt=0.9)
    test_fraction: float = Field(0.2, ge=0.0, lt=0.9, description="of the observations, if none is marked test")
    hide_photos_of_species: int = Field(0, ge=0, description="species whose photos all go to the test split")
    photos_per_species: int | None = Field(None, ge=1, description="training photos kept; the rest are tested")


class SamplingConfig(_Section):
    """What a batch is made of."""

    species_per_batch: int = Field(16, ge=2)
    images_per_role: int = Field(2, ge=1)


class AugmentationConfig(_Section):
    """Random views for training; never grey, blurred or solarised, since colour and edges name plants."""

    views: int = Field(4, ge=1, description="cached random views of an image")
    minimum_area: float = Field(0.4, gt=0.0, le=1.0)
    horizontal_flip: float = Field(0.5, ge=0.0, le=1.0)
    vertical_flip: float = Field(0.2, ge=0.0, le=1.0)
    rotation_degrees: float = Field(25.0, ge=0.0, le=180.0)
    brightness: float = Field(0.25, ge=0.0, le=0.9)
    contrast: float = Field(0.25, ge=0.0, le=0.9)
    saturation: float = Field(0.25, ge=0.0, le=0.9)
    hue: float = Field(0.02, ge=0.0, le=0.5)


class SpecialistConfig(_Section):
    """The classifier: a fine-tuned tail (cross-entropy plus triplet loss), or one on frozen features."""

    kind: Literal["tuned", "linear", "svm"] = "tuned"
    margin: float = Field(0.3, gt=0.0)
    triplet_weight: float = Field(1.0, ge=0.0)
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0)
    probe: bool = Field(True, description="start from logistic regression on the frozen features (LP-FT)")
    domain_adversary_weight: float = Field(0.0, ge=0.0, description="of the reversed gradient (DANN)")
    genus_weight: float = Field(0.0, ge=0.0)
    family_weight: float = Field(0.0, ge=0.0)
    strengths: tuple[float, ...] = Field((0.1,), description="C of the probe, of linear and of svm to choose from")
    gamma_factors: tuple[float, ...] = Field((0.1, 0.3, 1.0, 3.0), description="of an SVM's scale; to choose from")

    @property
    def has_adversary(self) -> bool:
        """Whether heads beside the classifier shape the features."""
        return max(self.domain_adversary_weight, self.genus_weight, self.family_weight) > 0.0


class GeneralistConfig(_Section):
    """The embedding: the backbone's own, or one fine-tuned with cross-domain triplet loss; and its metric."""

    kind: Literal["tuned", "frozen"] = "frozen"
    metric: Literal["cosine", "centred", "whitened"] = "whitened"
    shrinkage: float = Field(0.3, ge=0.0, le=1.0, description="of the whitened metric's covariance to the identity")
    margin: float = Field(0.2, gt=0.0)
    mining: Literal["semihard", "hard", "all"] = "semihard"
    rate: float = Field(
        0.1, gt=0.0, description="times the optimizer's rates; much tuning forgets unphotographed species"
    )


class OptimizerConfig(_Section):
    """AdamW with layer-wise decay and a cosine schedule, or one that falls where the figures stand still."""

    epochs: int = Field(12, ge=1)
    steps_per_epoch: int | None = Field(None, ge=1, description="none: as many as show every image once")
    learning_rate: float = Field(1e-4, gt=0.0)
    head_learning_rate: float = Field(1e-3, gt=0.0)
    weight_decay: float = Field(0.05, ge=0.0)
    layer_decay: float = Field(0.75, gt=0.0, le=1.0)
    warmup_fraction: float = Field(0.1, ge=0.0, lt=1.0)
    gradient_clip: float = Field(1.0, gt=0.0)
    schedule: Literal["cosine", "plateau"] = "cosine"
    plateau_patience: int = Field(2, ge=0, description="epochs without a better validation figure")
    plateau_factor: float = Field(0.3, gt=0.0, lt=1.0, description="of the rate thereafter")


class WarmupConfig(_Section):
    """Training of the whole network before it is cut in two; for random weights."""

    epochs: int = Field(0, ge=0)
    views: int = Field(6, ge=1)
    learning_rate: float = Field(2e-3, gt=0.0)


class CalibrationConfig(_Section):
    """Refits with the photos of some species hidden, which tell how herbarium-only species fare."""

    folds: int = Field(3, ge=0, description="0: none; the gate then rests on the validation split alone")
    epochs: int | None = Field(None, ge=1, description="of a refit; none: as many as the run")
    gate: Literal["auto", "distance", "fusion", "specialist", "generalist"] = "auto"


class TranslationConfig(_Section):
    """Sheets drawn anew as synthetic field photos by a CUT translator (Park et al. 2020); for training alone."""

    epochs: int = Field(0, ge=0, description="0: no translation; the rate falls to zero over the second half")
    steps_per_epoch: int | None = Field(None, ge=1, description="none: as many as show every sheet or photo once")
    batch: int = Field(1, ge=1)
    image_size: int = Field(256, ge=32, description="pixels of the shorter side")
    base_channels: int = Field(64, ge=1)
    residual_blocks: int = Field(9, ge=1)
    nce_layers: tuple[str, ...] | None = Field(
        None, description="of pixels, down1, down2, block1 …; none: these three, the first and the middle block"
    )
    nce_weight: float = Field(10.0, gt=0.0, description="the paper's where there is no identity loss")
    patches: int = Field(128, ge=2)
    temperature: float = Field(0.07, gt=0.0)
    learning_rate: float = Field(2e-4, gt=0.0)
    images_per_species: int = Field(8, ge=1, description="sheets of a species that are translated")


class RunConfig(_Section):
    """Everything that a training run depends on, besides the catalogue."""

    seed: int = Field(0, ge=0)
    backbone: BackboneConfig = BackboneConfig()
    heads: HeadsConfig = HeadsConfig()
    split: SplitConfig = SplitConfig()
    sampling: SamplingConfig = SamplingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    specialist: SpecialistConfig = SpecialistConfig()
    generalist: GeneralistConfig = GeneralistConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    warmup: WarmupConfig = WarmupConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    translation: TranslationConfig = TranslationConfig()
    cache_gib: float = Field(20.0, ge=0.0, description="disk that cached trunk outputs may take")

    @classmethod
    def read(cls, path: Path | None, overrides: dict[str, Any] | None = None) -> "RunConfig":
        """The config of a TOML file, or the defaults, with dotted `overrides` (``{"backbone.name": …}``) on top.

        Raises `InvalidConfig` naming the file, the key and what is allowed.
        """
        values: dict[str, Any] = {}
        if path is not None:
            try:
                values = tomllib.loads(path.read_text(encoding="utf-8"))
            except FileNotFoundError as error:
                raise InvalidConfig(f"there is no run config at {path}") from error
            except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
                raise InvalidConfig(f"{path} is not a readable TOML file: {error}") from error
        for key, value in (overrides or {}).items():
            if value is not None:
                *sections, name = key.split(".")
                target = values
                for section in sections:
                    target = target.setdefault(section, {})
                    if not isinstance(target, dict):
                        raise InvalidConfig(f"{path}: [{section}] must be a section, not a value")
                target[name] = value
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            lines = [f"[{'.'.join(str(p) for p in e['loc'])}] {e['msg']}" for e in error.errors()]
            raise InvalidConfig(f"{path or 'the options'}: " + "; ".join(lines)) from error

    def to_json(self) -> dict[str, Any]:
        """Plain values, complete with every default."""
        return self.model_dump(mode="json")
