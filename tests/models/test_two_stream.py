import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.artifacts import MODEL_KIND, writing
from models.backbone import create_network, default_preprocessing
from models.bundle import CalibrationSet, load_model, model_metadata, write_model_files
from models.classifiers import RbfSvm, StandardisedLinear
from models.compute import Compute
from models.dct import PatchDct
from models.errors import BundleCorrupt, InvalidConfig
from models.home import Home
from models.preprocess import Preprocessing
from models.taxonomy import Species, SpeciesId, Taxonomy
from models.two_stream import (
    GeneralistKind,
    NetworkShape,
    SpecialistKind,
    TwoStreamNetwork,
    embedding_space_id,
    weights_digest,
)

CPU = Compute("cpu", None)
CLASSES, FEATURES, PROJECTED = 5, 24, 10
SMALL_VIT: dict[str, Any] = {"embed_dim": FEATURES, "depth": 2, "num_heads": 2, "patch_size": 8}

KINDS: list[tuple[SpecialistKind, GeneralistKind]] = [
    ("tuned", "tuned"),
    ("tuned", "frozen"),
    ("linear", "tuned"),
    ("linear", "frozen"),
    ("svm", "tuned"),
    ("svm", "frozen"),
]
every_kind = pytest.mark.parametrize(("specialist", "generalist"), KINDS)


def backbone(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_network("vit_tiny_patch16_224", image_size=32, arguments=SMALL_VIT).eval()


def shape(specialist: SpecialistKind = "tuned", generalist: GeneralistKind = "tuned", **more: Any) -> NetworkShape:
    return NetworkShape("vit_tiny_patch16_224", 32, 1, CLASSES, 8, PROJECTED, SMALL_VIT, specialist, generalist, **more)


def network_of(specialist: SpecialistKind, generalist: GeneralistKind, seed: int = 0, **more: Any) -> TwoStreamNetwork:
    """A network with a head that has learnt something, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TwoStreamNetwork(shape(specialist, generalist, **more), backbone())
        if specialist != "tuned":
            network.set_classifier(fitted(specialist, network.specialist_features, seed))
        if network.projection is not None:  # the same beside every specialist, and more than the shortcut it begins as
            torch.manual_seed(seed)
            for parameter in network.projection.parameters():
                nn.init.normal_(parameter)
    return network.eval()


def fitted(kind: str, features: int, seed: int = 0) -> StandardisedLinear | RbfSvm:
    """A classifier with arbitrary values, as fitted ones have."""
    generator = torch.Generator().manual_seed(seed)
    head = StandardisedLinear(features, CLASSES) if kind == "linear" else RbfSvm(features, CLASSES, 2 * CLASSES)
    with torch.no_grad():
        head.mean.normal_(generator=generator)
        head.scale.uniform_(0.5, 2.0, generator=generator)
        if isinstance(head, StandardisedLinear):
            head.weight.normal_(generator=generator)
            head.bias.normal_(generator=generator)
        else:
            head.gamma.fill_(0.01)
            head.support_classes.copy_(torch.arange(CLASSES).repeat_interleave(2))
            for values in (head.support_vectors, head.coefficients):
                values.normal_(generator=generator)
            head.intercepts.normal_(generator=generator).triu_(1)
    return head.eval()


def pictures(count: int = 3, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def parameters_of(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters())


# -- what the streams say


@every_kind
@torch.inference_mode()
def test_both_streams_at_once_are_what_each_says_alone(specialist: SpecialistKind, generalist: GeneralistKind) -> None:
    network = network_of(specialist, generalist)
    pixels = pictures()
    logits, embeddings = network(pixels)
    tokens = network.trunk(pixels)
    classified, features = network.classify_tokens(tokens)
    torch.testing.assert_close(logits, classified)
    torch.testing.assert_close(features, network.features(tokens))
    torch.testing.assert_close(logits, network.classify(features))
    torch.testing.assert_close(embeddings, network.embed_tokens(tokens))
    torch.testing.assert_close(embeddings, network.embed(pixels))
    assert (logits.shape, embeddings.shape) == ((3, network.classes), (3, network.dimensions))
    assert logits.dtype == embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    assert len({round(float(v), 5) for v in logits[:, 0]}) == 3, "every picture gets the same answer"


@every_kind
@torch.inference_mode()
def test_frozen_streams_see_the_backbone_as_it_came(specialist: SpecialistKind, generalist: GeneralistKind) -> None:
    network = network_of(specialist, generalist)
    expected = backbone()(pictures())
    torch.testing.assert_close(network.features(network.trunk(pictures())), expected, rtol=1e-4, atol=1e-5)
    if generalist == "frozen":
        unit = expected / expected.norm(dim=1, keepdim=True)
        torch.testing.assert_close(network.embed(pictures()), unit, rtol=1e-4, atol=1e-5)
        assert network.dimensions == FEATURES
    else:
        assert network.dimensions == PROJECTED


@pytest.mark.parametrize("specialist", ["tuned", "linear", "svm"])
@torch.inference_mode()
def test_the_classifier_is_the_head_that_was_put_on(specialist: SpecialistKind) -> None:
    network = network_of(specialist, "frozen")
    features = network.features(network.trunk(pictures()))
    head = copy.deepcopy(network.specialist_head)
    torch.testing.assert_close(network.classify(features), head(features))
    torch.testing.assert_close(network(pictures())[0], head(features))


@every_kind
def test_what_is_computed_in_reduced_precision_comes_out_in_float32(
    specialist: SpecialistKind, generalist: GeneralistKind
) -> None:
    network = network_of(specialist, generalist)
    with torch.inference_mode():
        expected = network(pictures())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = network(pictures())
    for values in found:
        assert values.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(found[1], expected[1]).min() > 0.99


# -- what is frozen and what is not


@every_kind
def test_one_tail_serves_both_streams_where_neither_is_tuned(
    specialist: SpecialistKind, generalist: GeneralistKind
) -> None:
    network = network_of(specialist, generalist)
    is_frozen = specialist != "tuned" and generalist == "frozen"
    assert network.shape.is_frozen is is_frozen
    assert (network.specialist_tail is network.generalist_tail) is is_frozen
    names = list(network.state_dict())
    assert any(name.startswith("separate_tail.") for name in names) is not is_frozen
    assert any(name.startswith("projection.") for name in names) is (generalist == "tuned")
    of_a_tail = len(network.generalist_tail.state_dict())
    assert sum("tail" in name.split(".")[0] for name in names) == of_a_tail * (1 if is_frozen else 2)
    places = [value.data_ptr() for value in network.state_dict().values() if value.numel()]
    assert len(places) == len(set(places)), "tensors are stored twice"


@every_kind
def test_only_what_is_tuned_learns(specialist: SpecialistKind, generalist: GeneralistKind) -> None:
    network = TwoStreamNetwork(shape(specialist, generalist), backbone())
    assert not any(p.requires_grad for p in parameters_of(network.trunk))
    assert all(p.requires_grad is (generalist == "tuned") for p in parameters_of(network.generalist_tail))
    if not network.shape.is_frozen:
        assert all(p.requires_grad is (specialist == "tuned") for p in parameters_of(network.specialist_tail))
    assert all(p.requires_grad for p in parameters_of(network.specialist_head))


@every_kind
def test_what_is_frozen_stays_in_evaluation_mode(specialist: SpecialistKind, generalist: GeneralistKind) -> None:
    network = TwoStreamNetwork(shape(specialist, generalist), backbone())
    assert network.train() is network
    assert not any(module.training for module in network.trunk.modules())
    assert all(m.training is (generalist == "tuned") for m in network.generalist_tail.modules())
    assert all(m.training is (specialist == "tuned") for m in network.specialist_tail.modules())
    assert network.specialist_head.training
    if network.projection is not None:
        assert network.projection.training
    network.eval()
    assert not any(module.training for module in network.modules())


def test_tuning_one_stream_leaves_the_other_and_the_given_backbone_alone() -> None:
    given = backbone()
    before = weights_digest(given)
    network = TwoStreamNetwork(shape("tuned", "tuned"), given).eval()
    _, embeddings = network(pictures())
    with torch.no_grad():
        for parameter in parameters_of(network.specialist_tail):
            parameter.add_(1.0)
    torch.testing.assert_close(network(pictures())[1], embeddings)
    assert weights_digest(given) == before


# -- the embedding space


@pytest.mark.parametrize("generalist", ["tuned", "frozen"])
def test_the_embedding_space_does_not_depend_on_the_specialist(generalist: GeneralistKind) -> None:
    spaces = set()
    for specialist in ("tuned", "linear", "svm"):
        for seed in (0, 1):
            network = network_of(specialist, generalist)  # type: ignore[arg-type]
            if specialist != "tuned":
                network.set_classifier(fitted(specialist, FEATURES, seed))
            elif seed:
                with torch.no_grad():
                    for parameter in parameters_of(network.specialist_tail):
                        parameter.add_(1.0)
            spaces.add(embedding_space_id(network, "preprocessing"))
    spaces.add(embedding_space_id(network_of("tuned", generalist, dct_frequencies=2), "preprocessing"))
    assert len(spaces) == 1


@every_kind
def test_the_embedding_space_depends_on_the_generalist_and_its_input(
    specialist: SpecialistKind, generalist: GeneralistKind
) -> None:
    network = network_of(specialist, generalist)
    spaces = [embedding_space_id(network, "one"), embedding_space_id(network, "other")]
    parts = [network.trunk, network.generalist_tail, *([network.projection] if network.projection else [])]
    for part in parts:
        with torch.no_grad():
            parameters_of(part)[-1].view(-1)[0] += 0.5
        spaces.append(embedding_space_id(network, "one"))
    assert len(set(spaces)) == len(spaces)


def test_streams_of_both_generalists_do_not_share_a_space() -> None:
    assert embedding_space_id(network_of("tuned", "tuned"), "p") != embedding_space_id(
        network_of("tuned", "frozen"), "p"
    )


# -- class token beside low frequencies of the patches


@every_kind
@torch.inference_mode()
def test_low_frequencies_of_the_patches_stand_beside_the_pooled_features(
    specialist: SpecialistKind, generalist: GeneralistKind
) -> None:
    network = network_of(specialist, generalist, dct_frequencies=2)
    assert network.specialist_features == FEATURES * (1 + 3)
    whole = backbone()
    last: Tensor = whole.forward_features(pictures())  # type: ignore[operator]
    patches = PatchDct(4, 4, 2)(last[:, 1:])
    features = network.features(network.trunk(pictures()))
    torch.testing.assert_close(features[:, :FEATURES], whole(pictures()), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features[:, FEATURES:], patches, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(network(pictures())[0], network.classify(features))
    plain = network_of(specialist, generalist)
    if generalist == "frozen":
        torch.testing.assert_close(network.embed(pictures()), plain.embed(pictures()))


def test_networks_without_patch_tokens_refuse_low_frequencies() -> None:
    settings: dict[str, Any] = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}
    refused = NetworkShape("convnext_atto", 64, 1, 3, 8, 8, settings, dct_frequencies=2)
    with pytest.raises(InvalidConfig, match="patch tokens"):
        TwoStreamNetwork(refused)


# -- heads


@torch.inference_mode()
def test_a_head_that_starts_from_a_probe_gives_the_probes_logits() -> None:
    network = network_of("tuned", "frozen")
    probe = fitted("linear", FEATURES, seed=3)
    assert isinstance(probe, StandardisedLinear)
    features = network.features(network.trunk(pictures()))
    assert not torch.allclose(network.classify(features), probe(features), atol=0.1)
    network.start_from(probe)
    torch.testing.assert_close(network.classify(features), probe(features), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(network(pictures())[0], probe(features), rtol=1e-4, atol=1e-4)


def test_a_head_that_started_from_a_probe_still_learns() -> None:
    network = network_of("tuned", "frozen")
    probe = fitted("linear", FEATURES)
    assert isinstance(probe, StandardisedLinear)
    network.start_from(probe)
    network(pictures())[0].sum().backward()
    assert all(p.grad is not None for p in parameters_of(network.specialist_head))
    assert all(p.grad is None for p in [*parameters_of(network.trunk), *parameters_of(network.generalist_tail)])


def test_the_shape_counts_the_support_vectors_of_the_present_classifier() -> None:
    network = TwoStreamNetwork(shape("svm", "frozen"), backbone())
    assert network.shape.support_vectors == 0
    network.set_classifier(fitted("svm", FEATURES))
    assert network.shape.support_vectors == 2 * CLASSES
    assert TwoStreamNetwork(network.shape).load_state_dict(network.state_dict(), strict=True)


# -- stored and read back

TAXONOMY = Taxonomy(tuple(Species(SpeciesId(f"s{i}"), f"Species {i}") for i in range(CLASSES)))


def store(home: Home, network: TwoStreamNetwork, changes: dict[str, Any] | None = None) -> Preprocessing:
    """A model artifact of the network, its stored shape changed."""
    preprocessing = default_preprocessing(backbone(), 32)
    known = model_metadata(network, preprocessing, TAXONOMY)
    known["network"] |= changes or {}
    with writing(home.models, kind=MODEL_KIND, artifact_id="model-1", metadata=known) as folder:
        write_model_files(folder, network, TAXONOMY, np.ones(CLASSES, bool), CalibrationSet.empty(CLASSES))
    return preprocessing


@every_kind
@pytest.mark.parametrize("dct_frequencies", [0, 2])
def test_a_stored_network_answers_as_before(
    tmp_path: Path, specialist: SpecialistKind, generalist: GeneralistKind, dct_frequencies: int
) -> None:
    network = network_of(specialist, generalist, dct_frequencies=dct_frequencies)
    preprocessing = store(Home(tmp_path), network)
    loaded = load_model(Home(tmp_path), "model-1", CPU)
    assert loaded.metadata["network"] == asdict(network.shape)
    assert loaded.metadata["network"]["support_vectors"] == (2 * CLASSES if specialist == "svm" else 0)
    assert loaded.encoder.space_id == embedding_space_id(network, preprocessing.digest)
    assert loaded.encoder.dimensions == network.dimensions
    encoded = loaded.encoder.encode(pictures().numpy())
    with torch.inference_mode():
        logits, embeddings = network(pictures())
    np.testing.assert_allclose(encoded.logits, logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(encoded.embeddings, embeddings, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(loaded.encoder.embed(pictures().numpy()), embeddings, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changes", [{"support_vectors": 3}, {"specialist": "linear"}, {"generalist": "tuned"}, {"dct_frequencies": 2}]
)
def test_weights_of_another_shape_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    network = network_of("svm", "frozen")
    store(Home(tmp_path), network, changes)
    with pytest.raises(BundleCorrupt, match="does not hold what it should"):
        load_model(Home(tmp_path), "model-1", CPU)


def test_tuning_does_not_start_with_classes_ahead_that_the_probe_does_not_know() -> None:
    vit = {"embed_dim": 24, "depth": 2, "num_heads": 2, "patch_size": 8}
    network = TwoStreamNetwork(NetworkShape("vit_tiny_patch16_224", 32, 1, 3, 8, 8, vit, "tuned", "frozen")).eval()
    probe = StandardisedLinear(24, 3)
    with torch.no_grad():
        probe.weight[:2].normal_(generator=torch.Generator().manual_seed(0))
        probe.bias[:2] = torch.tensor([-3.0, -4.0])
    probe.known[2] = False
    features = torch.randn(6, 24, generator=torch.Generator().manual_seed(1)) * 0.1
    network.start_from(probe)
    with torch.no_grad():
        assert (network.classify(features).argmax(1) == probe(features).argmax(1)).all()
