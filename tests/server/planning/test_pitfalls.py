"""A pitfall is named when it is true of the plan, and only then."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sizewright_catalog.devices import devices
from sizewright_catalog.values import InstanceType, Machine
from sizewright_server.engines import bundled_sizing
from sizewright_server.estimation.classical.job import FitJob, Table, TableFile
from sizewright_server.estimation.classical.prepared import FitWorkload
from sizewright_server.estimation.memory import ByteRange
from sizewright_server.estimation.preparation import AnyWorkload, prepare_any
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.serving.run import ServingRun, ServingWorkload
from sizewright_server.estimation.workload import (
    Dataset,
    HostConditions,
    Inference,
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)
from sizewright_server.planning.pitfalls import pitfalls
from sizewright_server.planning.plan import PoolFit
from sizewright_server.planning.situation import Situation

GPT2 = "openai-community/gpt2"
LLAMA = "meta-llama/Meta-Llama-3-8B"
VIT = "google/vit-large-patch16-224"
GIB = 2**30


def machine(device: str) -> InstanceType:
    """A machine of the catalog with eight of a device."""
    catalog = bundled_sizing().catalog
    offers = (catalog.offer(i) for i in range(catalog.offer_count))
    return next(
        offer.instance_type
        for offer in offers
        if offer.instance_type.device == devices()[device] and offer.instance_type.device_count == 8
    )


def owned() -> Machine:
    """A box of the asker's own with eight GPUs."""
    kind = machine("H100-SXM")
    return Machine(
        name="machines/box",
        vcpus=64,
        cpu_architecture="x86_64",
        host_nominal_bytes=512 * GIB,
        host_usable_bytes=400 * GIB,
        overheads=(),
        device=kind.device,
        device_count=8,
        slice=1.0,
        gpu_usable_bytes=80 * GIB,
    )


def pool(share: float, *, best: float = 0.8) -> PoolFit:
    """A GPU of 80 GiB filled to a share by the high estimate, and to `best` of that by the best."""
    high = int(share * 80 * GIB)
    return PoolFit("gpu", ByteRange(high // 2, int(high * best), high), 80 * GIB, "fits")


def host(share: float = 0.3, size: int = 400 * GIB) -> PoolFit:
    """Host memory filled to a share by the high estimate."""
    high = int(share * size)
    return PoolFit("host", ByteRange(high // 2, int(0.9 * high), high), size, "fits")


def situation(
    *,
    share: float = 0.8,
    layout: Layout | None = None,
    batch: int = 4,
    tokens: int = 1024,
    preset: str = GPT2,
    dataset: Dataset | None = None,
    hours: tuple[float, float, float] | None = None,
    device: str = "H100-SXM",
    conditions: HostConditions | None = None,
    **run: Any,
) -> Situation:
    """GPT-2 on eight linked GPUs, none of which is a pitfall."""
    training = Training(
        precision="bf16-mixed",
        optimizer=Optimizer("adamw"),
        micro_batch=batch,
        seq_len=tokens,
        **run,
    )
    source = ModelSource(find_preset(preset).config, preset=preset)
    work = Workload(source, training, dataset=dataset, host=conditions or HostConditions())
    return on_machine(work, share=share, layout=layout, hours=hours, device=device)


def on_machine(
    work: AnyWorkload,
    *,
    share: float = 0.8,
    layout: Layout | None = None,
    hours: tuple[float, float, float] | None = None,
    device: str = "H100-SXM",
) -> Situation:
    """A workload on eight GPUs."""
    pools = (pool(share), host())
    return Situation(prepare_any(work), machine(device), layout or Layout(dp=8), 1, pools, hours)


def fit(job: FitJob, **pools: Any) -> Situation:
    """A fit on a machine with as much memory as `host` says."""
    prepared = prepare_any(FitWorkload(job))
    peak = prepared.estimate(Layout(), 1, None).pool("host").peak  # type: ignore[arg-type]
    size = pools.get("size", int(peak.high_bytes / 0.8))
    one = PoolFit("host", peak, size, "fits")
    return Situation(prepared, machine("H100-SXM"), Layout(), 1, (one,))


def told(it: Situation, code: str) -> str:
    """What is said under a code; empty when nothing is."""
    return " ".join(notice.message for notice in pitfalls(it) if notice.code == code)


def codes(it: Situation) -> list[str]:
    """Of the pitfalls named."""
    return [notice.code for notice in pitfalls(it)]


def test_a_batch_larger_than_any_that_is_known_to_serve_is_told_with_what_keeps_it_smaller() -> (
    None
):
    layout = Layout(dp=128, zero=3, sharding="fsdp2")
    # 4 samples of 1,024 tokens on 128 ranks are half a million tokens a pass.
    small = situation(layout=layout, gradient_accumulation_steps=32)
    large = situation(layout=layout, gradient_accumulation_steps=64)

    assert "large-global-batch" not in codes(small)
    (words,) = [n.message for n in pitfalls(large) if n.code == "large-global-batch"]
    assert "takes 32,768 samples, 34 M tokens" in words
    assert "'gradient_accumulation_steps: 32' keeps to that" in words


def test_a_plan_without_pitfalls_is_told_none() -> None:
    assert codes(situation()) == []


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.3, ["batch-wastes-memory"]), (0.6, []), (0.94, []), (0.97, ["nearly-full"])],
)
def test_how_full_a_gpu_is_decides_whether_it_wastes_or_wants_watching(
    share: float, expected: list[str]
) -> None:
    assert codes(situation(share=share)) == expected


def test_a_batch_of_a_few_tokens_starves_a_gpu_and_is_told_by_how_much() -> None:
    words = told(situation(share=0.3, batch=1, tokens=64), "batch-starves-gpu")

    # 64 tokens: 2 x 64 x 768 x 3072 operations over 2 (64 x 768 + 768 x 3072 + 64 x 3072) bytes.
    assert "58 operations a byte" in words
    assert "H100-SXM needs 295" in words


def test_a_batch_that_keeps_a_gpu_computing_is_told_that_memory_does_not_help() -> None:
    full = situation(share=0.3, preset=VIT, batch=128, tokens=1, device="A100-80GB-SXM")

    assert "would not make it faster" in told(full, "compute-binds")
    assert "batch-wastes-memory" not in codes(full)


def test_decoding_of_a_few_sequences_is_bound_by_bandwidth_and_of_many_is_not() -> None:
    run = Inference("transformers", "bf16", "bf16", 4, 512, 128, "dynamic", 1)
    work = Workload(ModelSource(find_preset(GPT2).config, preset=GPT2), run)

    few, many = on_machine(work), on_machine(replace(work, run=replace(run, batch=256)))

    assert "at 4 sequences" in told(few, "bandwidth-binds")
    assert "bandwidth-binds" not in codes(many)


def test_states_on_every_gpu_are_a_pitfall_where_they_are_large_and_not_sharded() -> None:
    whole = situation(preset=LLAMA, layout=Layout(dp=8))
    sharded = situation(preset=LLAMA, layout=Layout(dp=8, zero=3, sharding="fsdp2"))

    # fp32 weights, gradients and two moments: 16 B for each of 8.03e9 parameters.
    assert "its own 120 GiB" in told(whole, "states-on-every-gpu")
    assert "105 GiB less on each" in told(whole, "states-on-every-gpu")
    assert "states-on-every-gpu" not in codes(sharded)
    assert "states-on-every-gpu" not in codes(situation(layout=Layout(dp=8)))


def test_sharded_weights_of_a_large_model_over_pcie_take_seconds_a_pass() -> None:
    sharded = Layout(dp=8, zero=3, sharding="fsdp2")

    assert "45 GiB over PCIe" in told(
        situation(preset=LLAMA, layout=sharded, device="L4"), "sharding-over-pcie"
    )
    assert "sharding-over-pcie" not in codes(situation(preset=LLAMA, layout=sharded))
    assert "sharding-over-pcie" not in codes(situation(layout=sharded, device="L4"))


def test_more_loader_processes_than_anybody_means_are_counted_aloud() -> None:
    assert codes(situation(conditions=HostConditions(loader_workers=2))) == []

    (notice,) = pitfalls(situation(conditions=HostConditions(loader_workers=16)))

    assert notice.code == "many-loader-processes"
    assert "8 ranks with 16 loader workers each are 128 processes" in notice.message


def test_loader_processes_on_a_machine_of_unstated_vcpus_are_counted_without_them() -> None:
    it = situation(conditions=HostConditions(loader_workers=40), layout=Layout())
    it.target = replace(owned(), vcpus=0)

    words = told(it, "many-loader-processes")

    assert "40 loader workers are as many processes on a node;" in words


def test_arrays_in_memory_are_copied_by_rank_and_a_mapped_file_is_not() -> None:
    data = Dataset(rows=1_000_000, tokens_per_row=2048, dtype="int32", container="in-memory")
    mapped = replace(data, container="memory-mapped")

    assert "8 copies, 61 GiB on a node" in told(situation(dataset=data), "dataset-copies")
    assert "dataset-copies" not in codes(situation(dataset=mapped))
    assert "dataset-copies" not in codes(situation(dataset=data, layout=Layout()))


def test_python_objects_grow_in_forked_workers_and_arrays_do_not() -> None:
    data = Dataset(rows=2_000_000, tokens_per_row=64, dtype="int32", container="objects")
    forked = HostConditions(loader_workers=4)

    assert "grows by up to 10 GiB" in told(
        situation(dataset=data, conditions=forked), "growth-by-workers"
    )
    arrays = situation(dataset=replace(data, container="in-memory"), conditions=forked)
    assert "growth-by-workers" not in codes(arrays)


def test_a_checkpoint_that_every_rank_reads_whole_is_counted_by_rank() -> None:
    whole = HostConditions(checkpoint_load="torch-load")

    assert "8 x 15 GiB are 120 GiB" in told(
        situation(preset=LLAMA, conditions=whole), "checkpoint-copies"
    )
    assert "checkpoint-copies" not in codes(situation(preset=LLAMA))
    one = situation(preset=LLAMA, conditions=whole, layout=Layout())
    assert "checkpoint-copies" not in codes(one)


def test_data_beyond_the_page_cache_is_read_from_disk_in_every_epoch() -> None:
    large = Dataset(rows=2**20, sample_elements=3 * 512 * 512, dtype="uint8")

    words = told(situation(dataset=large), "disk-binds")

    assert "768 GiB" in words
    assert "an epoch from a local NVMe drive" in words
    small = replace(large, rows=2**16)
    assert "disk-binds" not in codes(situation(dataset=small))


def test_images_in_float32_are_four_times_their_bytes() -> None:
    images = Dataset(
        rows=50_000, sample_elements=3 * 224 * 224, dtype="float32", container="in-memory"
    )

    assert "as uint8 they take 7.0 GiB" in told(
        situation(dataset=images, layout=Layout()), "preprocessing-multiplies"
    )
    narrow = replace(images, dtype="uint8")
    assert "preprocessing-multiplies" not in codes(situation(dataset=narrow, layout=Layout()))


def test_tensor_parallelism_is_slow_where_no_link_joins_the_gpus() -> None:
    linked = situation(layout=Layout(dp=4, tp=2))
    over_pcie = replace(linked, target=machine("L4"))

    assert codes(linked) == []
    assert codes(over_pcie) == ["tensor-parallel-over-pcie"]


def test_tensor_parallelism_across_nodes_waits_for_the_network() -> None:
    across = replace(situation(layout=Layout(tp=16)), nodes=2)

    assert codes(across) == ["tensor-parallel-across-nodes"]


def test_a_long_job_is_told_how_slow_a_leak_must_be_and_a_short_one_is_not() -> None:
    assert "MiB a minute" in told(situation(hours=(400, 500, 900)), "leak-budget")
    assert "leak-budget" not in codes(situation(hours=(1, 2, 3)))


def test_a_server_runs_for_weeks_and_is_told_how_slow_a_leak_must_be() -> None:
    run = ServingRun("vllm", "bf16", "bf16", "bf16", 8, 1024, 256)
    served = on_machine(ServingWorkload(ModelSource(find_preset(GPT2).config, preset=GPT2), run))
    small = replace(served, pools=(pool(0.8), host(0.5, 64 * GIB)))

    assert "In a week a leak of 3.3 MiB a minute" in told(small, "leak-budget")
    assert "leak-budget" not in codes(served)


def test_batches_of_varying_length_grow_the_allocators_cache_unless_segments_expand() -> None:
    varying = situation(variable_lengths=True)

    assert "no leak" in told(varying, "growth-of-the-allocator")
    expanding = situation(variable_lengths=True, expandable_segments=True)
    assert "growth-of-the-allocator" not in codes(expanding)


def test_a_machine_that_doubt_has_chosen_is_worth_a_measurement() -> None:
    doubtful = replace(situation(), pools=(pool(0.8, best=0.4), host()))

    assert "sizewright observe" in told(doubtful, "not-monitored")
    assert "not-monitored" not in codes(situation())


def test_a_host_that_lacks_little_is_told_what_swap_takes() -> None:
    short = PoolFit("host", ByteRange(90 * GIB, 100 * GIB, 110 * GIB), 104 * GIB, "tight")
    far = PoolFit("host", ByteRange(190 * GIB, 200 * GIB, 210 * GIB), 104 * GIB, "no")

    words = told(replace(situation(), pools=(pool(0.8), short)), "virtual-memory")

    assert "lacks 6.0 GiB" in words
    assert "every pass over what is swapped takes 1.0 to 4.3 s more" in words
    assert "virtual-memory" not in codes(replace(situation(), pools=(pool(0.8), far)))
    assert "virtual-memory" not in codes(situation())


def test_ones_own_machine_that_is_hardly_used_is_larger_than_its_job() -> None:
    own = replace(situation(share=0.1), target=owned())

    assert "uses at most 8.0 GiB of each GPU and 40 GiB of host memory" in told(
        replace(own, pools=(pool(0.1), host(0.1))), "over-provisioned"
    )
    assert "over-provisioned" not in codes(replace(own, pools=(pool(0.6), host(0.1))))


def test_every_warning_of_a_plan_is_in_the_documentation() -> None:
    root = Path(__file__).parents[3]
    page = (root / "docs" / "planning.md").read_text(encoding="utf-8")
    modules = (root / "server" / "sizewright_server" / "planning").glob("pitfalls_of_*.py")
    said = {
        code
        for module in modules
        for code in re.findall(r'Notice\("([a-z-]+)"', module.read_text(encoding="utf-8"))
    }

    assert len(said) > 20
    assert {code for code in said if f"`{code}`" not in page} == set()


def test_what_does_not_fit_is_not_said_to() -> None:
    full = replace(pool(1.5), verdict="no")
    it = replace(situation(layout=Layout(dp=4, tp=2)), target=machine("L4"), pools=(full,))

    assert [notice.message for notice in pitfalls(it) if "fits" in notice.message] == []
    assert codes(it) == ["tensor-parallel-over-pcie"]


def forest(**given: Any) -> FitJob:
    """A random forest on five million rows."""
    parameters = {"n_estimators": 300, **given}
    return FitJob("scikit-learn", "RandomForestClassifier", Table(5_000_000, 60), parameters)


def test_trees_that_outgrow_their_table_are_named() -> None:
    words = told(fit(forest()), "copies-of-the-table")

    assert "trees (" in words
    shallow = fit(forest(max_depth=6, max_leaf_nodes=64))
    assert "copies-of-the-table" not in codes(shallow)


def test_a_forest_on_one_core_of_many_is_bound_by_computing() -> None:
    cpus = machine("H100-SXM").vcpus

    assert f"on 1 of {cpus} vCPUs" in told(fit(forest()), "cores-idle")
    assert "cores-idle" not in codes(fit(replace(forest(n_jobs=cpus), threads=cpus)))


def test_more_memory_does_not_help_a_fit_that_has_enough() -> None:
    job = FitJob("xgboost", "XGBClassifier", Table(10_000_000, 50, "float32"))

    assert "more memory does not shorten it" in told(fit(job, size=400 * GIB), "compute-binds")
    assert "compute-binds" not in codes(fit(job))


def boosted(**given: Any) -> FitJob:
    """XGBoost on a large table."""
    return FitJob("xgboost", "XGBClassifier", Table(200_000_000, 100, "float64"), **given)


def test_a_csv_that_takes_more_to_read_than_to_fit_is_told_so() -> None:
    csv = TableFile("csv", size_bytes=200 * 10**9)

    words = told(fit(boosted(file=csv)), "reading-multiplies")

    assert "Reading the file is the peak" in words
    assert "on one core, whatever the memory" in told(fit(boosted(file=csv)), "parsing-binds")
    chunks = replace(csv, chunk_rows=100_000)
    assert "reading-multiplies" not in codes(fit(boosted(file=chunks)))
    small = TableFile("csv", size_bytes=10**9)
    assert "parsing-binds" not in codes(fit(boosted(file=small)))


def test_a_split_that_keeps_the_table_holds_its_rows_twice() -> None:
    kept = fit(boosted(test_share=0.2))
    freed = fit(boosted(test_share=0.2, frees_table=True))

    assert "149 GiB more" in told(kept, "preprocessing-multiplies")
    assert "preprocessing-multiplies" not in codes(freed)


def test_an_encoding_that_multiplies_the_table_is_told_by_how_much() -> None:
    table = Table(5_000_000, 60)
    poly = FitJob("scikit-learn", "PolynomialFeatures", table, operations=("fit-transform",))
    scaled = replace(poly, class_name="StandardScaler")

    assert "Preprocessing makes" in told(fit(poly), "preprocessing-multiplies")
    assert "preprocessing-multiplies" not in codes(fit(scaled))
