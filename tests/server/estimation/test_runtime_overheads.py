"""What a process holds on a GPU beside its tensors, by generation, CUDA version and layout."""

from __future__ import annotations

import pytest

from sizewright_server.estimation.runtime import MIB, KernelLoading, device_overhead
from sizewright_server.wire.library_versions import (
    cuda_release,
    kernel_loading,
    without_gpu,
    wrong_versions,
)


@pytest.mark.parametrize(
    ("versions", "loading"),
    [
        ({"cuda": "11.3"}, "eager"),
        ({"cuda": "11.7"}, "lazy"),
        ({"cuda": "12.4.1"}, "lazy"),
        ({"torch": "1.10.2+cu113"}, "eager"),
        ({"torch": "2.13.0"}, "lazy"),
        ({"cuda": "11.1", "torch": "2.13.0"}, "eager"),
        ({"transformers": "5.23.0"}, None),
    ],
)
def test_cuda_loads_kernels_as_they_are_used_from_11_7_on(
    versions: dict[str, str], loading: str | None
) -> None:
    assert kernel_loading(versions) == loading


@pytest.mark.parametrize(
    ("torch", "release", "loading"),
    [
        ("2.4.0+cu121", "12.1", "lazy"),
        ("1.10.2+cu113", "11.3", "eager"),
        ("1.13.1+cu116", "11.6", "eager"),
        ("1.9.0+cu102", "10.2", "eager"),
        ("1.4.0+cu92", "9.2", "eager"),
        ("2.1.0+cu121.with.pypi.cudnn", "12.1", "lazy"),
        ("2.13.0+cu130", "13.0", "lazy"),
        ("2.4.0", "", "lazy"),
        ("2.4.0a0+f70bd71a48.nv24.06", "", "lazy"),
        ("2.4.0+cpu", "", "lazy"),
    ],
)
def test_pytorchs_build_says_its_cuda(torch: str, release: str, loading: str) -> None:
    versions = {"torch": torch}

    assert not list(wrong_versions(versions, "workload.versions"))
    assert cuda_release(versions) == release
    assert kernel_loading(versions) == loading


@pytest.mark.parametrize(
    ("versions", "field", "words"),
    [
        ({"torch": "2.4.0+cu121", "cuda": "11.8"}, "cuda", "not the CUDA 12.1"),
        ({"torch": "2.4.0+cpu", "cuda": "12.1"}, "cuda", "built without CUDA"),
        ({"torch": "2.4.0+cu127"}, "torch", "no known release of CUDA"),
        ({"torch": "2.4.0+rocm6.1"}, "torch", "ROCm"),
    ],
)
def test_a_build_that_cannot_be_is_refused_by_its_name(
    versions: dict[str, str], field: str, words: str
) -> None:
    (wrong,) = wrong_versions(versions, "workload.versions")

    assert wrong.field == f"workload.versions[{field}]"
    assert words in wrong.description


def test_the_same_release_said_twice_is_no_contradiction() -> None:
    versions = {"torch": "2.4.0+cu121", "cuda": "12.1.1"}

    assert not list(wrong_versions(versions, "workload.versions"))


@pytest.mark.parametrize("torch", ["2.4.0+cpu", "2.6.0+xpu"])
def test_a_build_without_cuda_runs_on_no_gpu(torch: str) -> None:
    (wrong,) = without_gpu({"torch": torch}, "workload.versions")

    assert "accelerator 'cpu'" in wrong.description


@pytest.mark.parametrize("text", ["12", "twelve", "", "v12.4"])
def test_a_version_that_is_none_is_named(text: str) -> None:
    (wrong,) = wrong_versions({"cuda": text}, "workload.versions")

    assert wrong.field == "workload.versions[cuda]"
    assert "'12.4'" in wrong.description


@pytest.mark.parametrize(
    ("capability", "measured", "loading"),
    [
        ("7.0", 274, "lazy"),  # V100, PyTorch 1.13
        ("7.0", 636, "eager"),
        ("7.0", 1008, "eager"),  # Titan V, PyTorch 1.3
        ("7.5", 141, "lazy"),  # T4
        ("7.5", 879, "eager"),  # RTX 2080 Ti, CUDA 10.1
        ("8.6", 1687, "eager"),  # RTX 3090, CUDA 11.1
        ("8.0", 543, "eager"),  # A100, CUDA 11.5
        ("8.0", 399, "lazy"),  # vLLM's log
        ("9.0", 522, "lazy"),
    ],
)
def test_measured_contexts_are_inside_the_interval(
    capability: str, measured: int, loading: KernelLoading
) -> None:
    size = device_overhead("nvidia", capability, loading).context.size

    assert size.low_bytes <= measured * MIB <= size.high_bytes


@pytest.mark.parametrize(("ranks", "measured"), [(2, 342), (2, 519), (4, 392), (4, 656)])
def test_measured_communicators_are_inside_the_interval(ranks: int, measured: int) -> None:
    overhead = device_overhead("nvidia", "8.0")
    size = (overhead.pair if ranks <= 2 else overhead.group).size

    assert size.low_bytes <= measured * MIB <= size.high_bytes


def test_nvlink_sharp_needs_more_on_hopper() -> None:
    hopper, ampere = (device_overhead("nvidia", c).group.size for c in ("9.0", "8.0"))

    # 16 channels x 2 x 1 MiB x 8 ranks.
    assert hopper.high_bytes - ampere.high_bytes >= 16 * 2 * 8 * MIB


def test_an_eager_context_is_not_assumed_where_nothing_is_stated() -> None:
    stated = device_overhead("nvidia", "8.0", "lazy").context
    unstated = device_overhead("nvidia", "8.0").context

    assert unstated.size == stated.size
