"""The CUDA version of a workload counts alike in Estimate, Recommend and CheckFit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from running_server import example
from sizewright.v1 import estimate_pb2, plan_pb2, sizing_service_pb2
from sizewright_client import SizingClient
from sizewright_client.errors import InvalidRequestError

MIB = 2**20
#: Instance types of one provider with one GPU, by its device.
TYPES = {
    "V100-16GB": "Standard_NC6s_v3",
    "A100-80GB-PCIe": "Standard_NC24ads_A100_v4",
    "H100-NVL": "Standard_NC40ads_H100_v5",
}


@pytest.fixture(params=["served", "embedded"])
def engine(request: pytest.FixtureRequest, target: str) -> Iterator[SizingClient]:
    """The engine behind a server on loopback, and the one in the process."""
    served = request.param == "served"
    with SizingClient.connect(target) if served else SizingClient.embedded() as client:
        yield client


def asked(cuda: str | None, file: str) -> sizing_service_pb2.RecommendRequest:
    request = example(file)
    if cuda is not None:
        request.workload.versions["cuda"] = cuda
    return request


def estimated(
    client: SizingClient, device: str, cuda: str | None, file: str = "bert-base-finetune"
) -> estimate_pb2.MemoryEstimate:
    workload = asked(cuda, file).workload
    question = sizing_service_pb2.EstimateRequest(workload=workload, device=device)
    return client.estimate(question).estimate


def checked(
    client: SizingClient, instance_type: str, cuda: str | None, file: str = "bert-base-finetune"
) -> sizing_service_pb2.CheckFitResponse:
    provider, _, name = instance_type.partition("/")
    question = sizing_service_pb2.CheckFitRequest(
        workload=asked(cuda, file).workload,
        instance_type=f"providers/{provider}/instanceTypes/{name}",
    )
    return client.check_fit(question)


def recommended(
    client: SizingClient, device: str, cuda: str | None, file: str = "bert-base-finetune"
) -> sizing_service_pb2.RecommendResponse:
    request = asked(cuda, file)
    request.constraints.Clear()
    request.constraints.devices.append(device)
    if device in TYPES:
        request.constraints.providers.append("azure")
        request.constraints.instance_types.append(TYPES[device])
    return client.recommend(request)


def parts(estimate: estimate_pb2.MemoryEstimate) -> dict[str, tuple[int, int, int]]:
    """The parts of a GPU at its peak; Recommend does not replay the allocator."""
    pool = estimate.pools[0]
    peak = next(phase for phase in pool.phases if phase.name == pool.peak_phase)
    return {
        part.name: (part.size.low_bytes, part.size.best_bytes, part.size.high_bytes)
        for part in peak.parts
        if part.name != "allocator-slack"
    }


@pytest.mark.parametrize(
    ("device", "cuda", "context_mib"),
    [
        ("V100-16GB", None, (200, 305, 1343)),
        ("V100-16GB", "11.3", (543, 1008, 1343)),
        ("V100-16GB", "12.4", (200, 305, 450)),
        ("A100-80GB-PCIe", None, (250, 440, 750)),
        ("A100-80GB-PCIe", "11.3", (543, 1488, 1800)),
        ("A100-80GB-PCIe", "11.7", (250, 440, 750)),
        ("H100-NVL", "12.4.1", (250, 440, 750)),
    ],
)
def test_a_version_gives_one_context_in_all_three(
    engine: SizingClient, device: str, cuda: str | None, context_mib: tuple[int, int, int]
) -> None:
    asked_first = estimated(engine, device, cuda)
    estimate = parts(asked_first)
    check = checked(engine, f"azure/{TYPES[device]}", cuda)
    plan = recommended(engine, device, cuda).recommendations[0]

    assert estimate["device-context"] == tuple(size * MIB for size in context_mib)
    assert parts(check.estimate) == parts(plan.estimate) == estimate
    assert check.pools[0].peak == check.estimate.pools[0].peak == asked_first.pools[0].peak
    assert check.pools[0].peak.high_bytes <= plan.pools[0].peak.high_bytes


def test_an_older_cuda_moves_what_the_fit_is_judged_by(engine: SizingClient) -> None:
    old, new = (
        [
            checked(engine, f"azure/{TYPES['A100-80GB-PCIe']}", cuda).pools[0].peak,
            recommended(engine, "A100-80GB-PCIe", cuda).recommendations[0].pools[0].peak,
            estimated(engine, "A100-80GB-PCIe", cuda).pools[0].gpu.device,
        ]
        for cuda in ("11.1", "12.8")
    )

    more = {a.best_bytes - b.best_bytes for a, b in zip(old, new, strict=True)}
    assert more == {(1488 - 440) * MIB}


@pytest.mark.parametrize(
    ("device", "instance_type", "cuda", "words"),
    [
        ("B200", "aws/p6-b200.48xlarge", "11.8", "CUDA 12.8 or later"),
        ("B200", "aws/p6-b200.48xlarge", "12.6", "CUDA 12.8 or later"),
        ("RTX-PRO-6000-Blackwell-SE", "aws/g7e.12xlarge", "11.0", "CUDA 12.8 or later"),
        ("H100-NVL", "azure/Standard_NC40ads_H100_v5", "11.7", "CUDA 11.8 or later"),
        ("V100-16GB", "azure/Standard_NC6s_v3", "13.0", "a CUDA before 13.0"),
    ],
)
def test_a_device_that_the_version_has_no_kernels_for_is_refused_by_all_three(
    engine: SizingClient, device: str, instance_type: str, cuda: str, words: str
) -> None:
    with pytest.raises(InvalidRequestError, match=f"CUDA {cuda} has no kernels.*{words}"):
        estimated(engine, device, cuda)

    check = checked(engine, instance_type, cuda)
    assert check.verdict == plan_pb2.VERDICT_NO
    assert f"CUDA {cuda} has no kernels for {device}" in check.reasons[0]
    assert words in check.reasons[0]

    answer = recommended(engine, device, cuda)
    assert not answer.recommendations
    assert any(f"without CUDA {cuda}" in lost.message for lost in answer.rejections)


@pytest.mark.parametrize("file", ["llama3-8b-chat", "llama3-70b-vllm", "keras-cnn"])
def test_served_and_keras_models_need_a_device_for_their_version_too(
    engine: SizingClient, file: str
) -> None:
    check = checked(engine, "aws/p6-b200.48xlarge", "11.8", file)

    assert check.verdict == plan_pb2.VERDICT_NO
    assert "CUDA 11.8 has no kernels for B200" in check.reasons[0]


def test_a_gpu_that_is_not_of_nvidia_runs_no_cuda(engine: SizingClient) -> None:
    with pytest.raises(InvalidRequestError, match="MI300X runs no CUDA"):
        estimated(engine, "MI300X", "12.4")

    assert estimated(engine, "MI300X", None).pools[0].peak.best_bytes > 0
    assert recommended(engine, "MI300X", None).recommendations
    assert not recommended(engine, "MI300X", "12.4").recommendations


@pytest.mark.parametrize("file", ["bert-base-finetune", "keras-cnn", "llama3-70b-vllm"])
def test_a_release_that_is_not_known_is_refused_with_those_that_are(
    engine: SizingClient, file: str
) -> None:
    calls = (
        lambda: estimated(engine, "H100-NVL", "12.7", file),
        lambda: recommended(engine, "H100-NVL", "12.7", file),
        lambda: checked(engine, "azure/Standard_NC40ads_H100_v5", "12.7", file),
    )
    for call in calls:
        with pytest.raises(InvalidRequestError, match=r"no known release of CUDA.*12\.6, 12\.8"):
            call()


@pytest.mark.parametrize("digits", ["9" * 5000 + ".1", "2." + "9" * 5000])
def test_a_version_that_is_a_flood_of_digits_is_refused(engine: SizingClient, digits: str) -> None:
    request = example("llama3-8b-sft")
    request.workload.versions["torch"] = digits
    with pytest.raises(InvalidRequestError, match="is no version such as"):
        engine.recommend(request)


@pytest.mark.parametrize(
    ("name", "meant"), [("pytorch", "torch"), ("CUDA", "cuda"), ("cudatoolkit", "cuda")]
)
def test_another_name_of_a_library_that_is_read_is_refused(
    engine: SizingClient, name: str, meant: str
) -> None:
    request = example("llama3-8b-sft")
    request.workload.versions[name] = "12.4"
    with pytest.raises(InvalidRequestError, match=f"is not read; say '{meant}'"):
        engine.recommend(request)
