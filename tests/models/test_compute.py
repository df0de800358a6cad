from contextlib import nullcontext

import pytest
import torch

from models import compute as compute_module
from models.compute import Compute
from models.errors import DeviceUnavailable, InvalidConfig


@pytest.fixture
def no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine with two GPUs, as far as `Compute` can see."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"Test GPU {index}")
    monkeypatch.setattr(torch.cuda, "device", lambda index: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)


def cpu_bfloat16(monkeypatch, *, native: bool) -> None:
    for name in compute_module._CPU_BFLOAT16_CHECKS:
        monkeypatch.setattr(torch.cpu, name, lambda: native, raising=False)


@pytest.mark.usefixtures("no_cuda")
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_without_gpu_the_cpu_is_used(monkeypatch, device):
    cpu_bfloat16(monkeypatch, native=False)
    assert Compute.resolve(device) == Compute("cpu", None)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("device", "resolved"),
    [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:0", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")],
)
def test_device_names_resolve_on_a_machine_with_two_gpus(device, resolved):
    assert Compute.resolve(device).device == resolved


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("precision", "native", "dtype"),
    [
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float16),
        ("bfloat16", True, torch.bfloat16),
        ("bfloat16", False, torch.float16),
        ("float32", True, None),
    ],
)
def test_precision_on_a_gpu_depends_on_what_it_computes_natively(monkeypatch, precision, native, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert Compute.resolve("cuda:1", precision=precision).autocast_dtype is dtype


@pytest.mark.parametrize(
    ("precision", "native", "dtype"),
    [
        ("auto", True, torch.bfloat16),
        ("auto", False, None),
        ("float32", True, None),
        ("bfloat16", True, torch.bfloat16),
        ("bfloat16", False, None),
    ],
)
def test_cpu_uses_bfloat16_only_where_it_is_native(monkeypatch, precision, native, dtype):
    cpu_bfloat16(monkeypatch, native=native)
    assert Compute.resolve("cpu", precision=precision).autocast_dtype is dtype


def test_cpu_without_the_private_checks_computes_in_float32(monkeypatch):
    for name in compute_module._CPU_BFLOAT16_CHECKS:
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert Compute.resolve("cpu", precision="bfloat16").autocast_dtype is None


@pytest.mark.usefixtures("two_gpus")
def test_missing_gpu_raises_and_lists_those_that_exist():
    with pytest.raises(DeviceUnavailable, match=r"cuda:2.*cuda:0 \(Test GPU 0\), cuda:1 \(Test GPU 1\)"):
        Compute.resolve("cuda:2")


@pytest.mark.usefixtures("no_cuda")
@pytest.mark.parametrize(("cuda_version", "cause"), [(None, "built without CUDA"), ("12.6", "check the driver")])
def test_missing_cuda_raises_and_says_why(monkeypatch, cuda_version, cause):
    monkeypatch.setattr(torch.version, "cuda", cuda_version)
    with pytest.raises(DeviceUnavailable, match=cause):
        Compute.resolve("cuda")


@pytest.mark.parametrize(
    "device", ["", "gpu", "CUDA:0", "cuda:", "cuda:-1", "cuda:01", "cuda:x", "cuda:9999", "mps", "cpu:0", "cpu "]
)
def test_malformed_device_is_a_config_error(device):
    with pytest.raises(InvalidConfig, match="auto, cpu, cuda or cuda:N"):
        Compute.resolve(device)


def test_unknown_precision_is_a_config_error():
    with pytest.raises(InvalidConfig, match="float16"):
        Compute.resolve("cpu", precision="float16")


def test_an_unresolved_device_name_is_refused():
    with pytest.raises(ValueError, match="resolve"):
        Compute("auto", None)


def test_autocast_in_float32_leaves_products_alone():
    a = torch.ones(2, 2)
    with Compute("cpu", None).autocast():
        assert (a @ a).dtype is torch.float32


def test_autocast_on_a_cpu_runs_products_in_bfloat16():
    a = torch.ones(2, 2)
    with Compute("cpu", torch.bfloat16).autocast():
        assert (a @ a).dtype is torch.bfloat16
    assert (a @ a).dtype is torch.float32


@pytest.mark.usefixtures("two_gpus")
def test_description_names_device_precision_and_threads():
    assert Compute("cuda:1", torch.bfloat16).describe().startswith("cuda:1 (Test GPU 1), bfloat16, ")
    line = Compute("cpu", None).describe()
    assert line.startswith("cpu (")
    assert f"float32, {torch.get_num_threads()} CPU threads" in line
    assert "\n" not in line


def test_cuda_index_is_the_number_in_the_name():
    assert Compute("cuda:3", None).cuda_index == 3
    assert Compute("cpu", None).cuda_index is None


@pytest.mark.gpu
def test_autocast_on_a_gpu_uses_the_resolved_type():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    resolved = Compute.resolve("auto")
    a = torch.ones(2, 2, device=resolved.device)
    with resolved.autocast():
        assert (a @ a).dtype is resolved.autocast_dtype
    assert resolved.autocast_dtype in (torch.bfloat16, torch.float16)
