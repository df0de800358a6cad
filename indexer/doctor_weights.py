"""Weights of backbones: whether the files that runs name are there, and what would have to be downloaded."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from indexer.run_config import BackboneConfig, RunConfig
from models.artifacts import list_artifacts
from models.findings import Finding
from models.home import Home

_LATEST = 20


def check_weights(home: Home) -> Iterator[Finding]:
    """Of the latest runs; a home without a model is asked about the default network."""
    checked = 0
    for folder in sorted(home.runs.glob("*"), reverse=True)[:_LATEST]:
        config = _config(folder / "config.json")
        if config is None:
            continue
        checked += 1
        is_unfinished = not (folder / "model.json").is_file()
        yield from _check(config.backbone, folder, is_needed=is_unfinished)
    if not list_artifacts(home.models) and not checked:
        yield from _check(RunConfig().backbone, None, is_needed=True)
    elif checked:
        yield Finding.ok("weights", f"those of the latest {checked} runs were looked for", home.runs)


def _config(file: Path) -> RunConfig | None:
    """None for a folder that is no run, or one of another version, which nobody can continue."""
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return RunConfig.model_validate(values)
    except (OSError, ValueError):
        return None


def _check(backbone: BackboneConfig, run: Path | None, *, is_needed: bool) -> Iterator[Finding]:
    if backbone.weights is not None:
        if not backbone.weights.is_file():
            what = f"the weights file {backbone.weights} is gone; the run cannot be repeated"
            what += " or resumed" if is_needed else ", its model is not affected"
            yield Finding.warning(
                "weights", what, where=run, remedy="put the file back, or name another with --weights"
            )
        return
    if not backbone.pretrained or not is_needed:
        return
    import timm

    if not timm.is_model(backbone.name):
        remedy = "name a model that `timm.list_models()` lists"
        yield Finding.fault("weights", f"timm knows no network {backbone.name}", where=run, remedy=remedy)
    elif not _is_cached(backbone.name):
        what = f"{backbone.name} is not on this machine: training downloads it"
        remedy = "train once with internet access, or give a local file with --weights"
        yield Finding.warning("weights", what, where=run, remedy=remedy)
    else:
        yield Finding.ok("weights", f"{backbone.name} is on this machine", run)


def _is_cached(name: str) -> bool:
    """Whether the weights of a timm name can be loaded without a network."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    repository = None if config is None else config.hf_hub_id
    if config is not None and config.file is not None and Path(config.file).is_file():
        return True
    if not repository:
        return False
    repository = f"{repository}{name}" if repository.endswith("/") else repository
    files = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(repository, file), str) for file in files)
