"""What engines take of a GPU where nothing is stated, by version and device."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sizewright_server.estimation.memory import ByteRange
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.serving.devices import device_class, serving_device
from sizewright_server.estimation.serving.prepared import PreparedServing
from sizewright_server.estimation.serving.run import ServingDevice, ServingRun, ServingWorkload
from sizewright_server.estimation.serving.sglang import Sglang
from sizewright_server.estimation.serving.stages import Setup
from sizewright_server.estimation.serving.vllm import Vllm
from sizewright_server.estimation.workload import Layout, ModelSource

GIB = 2**30
USUAL = ServingRun("vllm", "bf16", "bf16", "bf16", batch=8, input_tokens=2048)
GPUS = {
    "A100-80GB-SXM": serving_device("A100-80GB-SXM", "nvidia", 80 * GIB, 600, 8.0),
    "H100-SXM": serving_device("H100-SXM", "nvidia", 80 * GIB, 900, 9.0),
    "L4": serving_device("L4", "nvidia", 22 * GIB, 0, 8.9),
    "B200": serving_device("B200", "nvidia", 180 * GIB, 1800, 10.0),
    "MI300X": serving_device("MI300X", "amd", 192 * GIB, 900),
}


def setup(
    version: tuple[int, ...], preset: str = "meta-llama/Llama-3.1-8B", **run: object
) -> Setup:
    config = find_preset(preset).config
    asked = replace(USUAL, version=version, **run)  # type: ignore[arg-type]
    workload = ServingWorkload(ModelSource(config), asked)
    return PreparedServing(workload).setup(asked.layout or Layout())


@pytest.mark.parametrize(
    ("version", "gpu", "sequences", "tokens"),
    [
        ((0, 8, 5), "A100-80GB-SXM", 1024, 8192),
        ((0, 9), "A100-80GB-SXM", 256, 2048),
        ((0, 19), "H100-SXM", 1024, 8192),
        ((0, 19), "L4", 256, 2048),
        ((0, 27), "B200", 1024, 8192),
        ((0, 33), "B200", 1024, 16_384),
        ((0, 19), "MI300X", 1024, 8192),
    ],
)
def test_vllm_batches_by_the_gpu_and_the_version(
    version: tuple[int, ...], gpu: str, sequences: int, tokens: int
) -> None:
    batches = Vllm(setup(version), GPUS[gpu]).batches

    assert (batches.sequences, batches.tokens) == (sequences, tokens)


def test_the_offline_class_of_vllm_batches_more_tokens() -> None:
    assert Vllm(setup((0, 19), offline=True), GPUS["H100-SXM"]).batches.tokens == 16_384
    assert Vllm(setup((0, 19), offline=True), GPUS["L4"]).batches.tokens == 8192


@pytest.mark.parametrize(
    ("version", "gib", "tp", "share"),
    [
        # server_args.py by hand: a table, then reserves of 9.5 + 1/2 GiB, then 512 MiB, 1.5 a token
        # of the chunk, 2 a graph row and 128 a rank, and 10 GiB at least above 60 GiB.
        ((0, 4, 6), 80, 8, 0.81),
        ((0, 4, 6), 141, 8, round((141 - 13) / 141, 3)),
        ((0, 5, 2), 80, 1, round((80 - 10) / 80, 3)),
        ((0, 5, 9), 80, 1, round((80 * 1024 - (512 + 12_288 + 512 + 128)) / (80 * 1024), 3)),
        ((0, 5, 9), 24, 4, round((24 * 1024 - (512 + 3072 + 160 + 512)) / (24 * 1024), 3)),
    ],
)
def test_sglang_keeps_a_reserve_by_the_gpu_and_the_version(
    version: tuple[int, ...], gib: int, tp: int, share: float
) -> None:
    device = ServingDevice(
        "a GPU", ByteRange(*(gib * GIB,) * 3), linked=True, sized_bytes=gib * GIB
    )
    engine = Sglang(setup(version, engine="sglang", layout=Layout(tp=tp)), device)

    assert engine.utilization == pytest.approx(share, abs=1e-9)


def test_a_later_sglang_may_hold_more_than_the_known_rules_say() -> None:
    def budget(version: tuple[int, ...]) -> ByteRange:
        run = setup(version, engine="sglang")
        return Sglang(run, GPUS["H100-SXM"]).budget()

    known, newer = budget((0, 5, 9)), budget((0, 5, 23))
    total = GPUS["H100-SXM"].total.high_bytes
    assert newer.best_bytes == known.best_bytes
    assert newer.low_bytes < known.low_bytes
    # All but 1.5 GiB and 128 MiB a rank, where the pool is sized after the graphs.
    assert known.high_bytes < newer.high_bytes <= total - 1664 * 2**20


def test_gpus_of_a_class_need_the_same_and_classes_differ() -> None:
    prepared = PreparedServing(
        ServingWorkload(
            ModelSource(find_preset("meta-llama/Llama-3.1-8B").config),
            replace(USUAL, version=(0, 19)),
        )
    )
    classes = {name: device_class(device, "vllm") for name, device in GPUS.items()}
    layouts = (Layout(), Layout(tp=2))

    large = prepared.reserved_on(layouts, classes["H100-SXM"])[1]
    small = prepared.reserved_on(layouts, classes["A100-80GB-SXM"])[1]

    assert classes["H100-SXM"] != classes["A100-80GB-SXM"]
    assert all(device.total.best_bytes == 0 for device in classes.values())
    # 1,024 rows of the sampler against 256, over a share of 0.9.
    saved = 768 * 128_256 * 14
    assert saved <= large[0] - small[0] <= 1.3 * saved
