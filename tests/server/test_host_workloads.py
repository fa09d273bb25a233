"""Fits, Keras models and networks on the CPU, from request files to answers and to refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sizewright.v1 import estimate_pb2
from sizewright_client import SizingClient
from sizewright_client.errors import SizingError
from sizewright_client.request_file import load_request

GIB = 2**30
MIB = 2**20
KERAS = Path(__file__).parents[1] / "fixtures" / "keras" / "cnn.json"


def asked(text: str, folder: Path) -> Any:
    file = folder / "job.yaml"
    file.write_text(text, encoding="utf-8")
    return load_request(str(file))


def estimated(client: SizingClient, text: str, folder: Path) -> estimate_pb2.MemoryEstimate:
    from sizewright.v1 import sizing_service_pb2

    workload = asked(text, folder).workload
    return client.estimate(sizing_service_pb2.EstimateRequest(workload=workload)).estimate


def host(estimate: estimate_pb2.MemoryEstimate) -> estimate_pb2.PoolEstimate:
    return next(pool for pool in estimate.pools if pool.pool == estimate_pb2.POOL_HOST)


def phases(pool: estimate_pb2.PoolEstimate) -> dict[str, int]:
    return {phase.name: phase.total.best_bytes for phase in pool.phases}


def fit(estimator: str, rows: int = 1_000_000, columns: int = 50, **more: str) -> str:
    lines = {"fit": "{}", "dataset": f"{{rows: {rows}, columns: {columns}}}"} | more
    head = f"framework: scikit-learn\nmodel: {{estimator: {{class_name: {estimator}}}}}\n"
    return head + "".join(f"{name}: {value}\n" for name, value in lines.items())


def test_a_kernel_method_on_ten_million_rows_gets_its_true_answer(
    client: SizingClient, tmp_path: Path
) -> None:
    peak = host(estimated(client, fit("KernelRidge", rows=10_000_000), tmp_path)).peak

    assert peak.best_bytes > 8 * 10_000_000**2


def test_two_terabytes_of_rows_are_two_terabytes(client: SizingClient, tmp_path: Path) -> None:
    text = fit("SGDClassifier", rows=2_500_000_000, columns=100)

    assert 2e12 < host(estimated(client, text, tmp_path)).peak.best_bytes < 2.2e12


def test_what_no_machine_could_address_is_refused(client: SizingClient, tmp_path: Path) -> None:
    with pytest.raises(SizingError, match="no machine could address"):
        estimated(client, fit("KernelRidge", rows=2**53), tmp_path)


def test_reading_a_csv_has_a_peak_of_its_own(client: SizingClient, tmp_path: Path) -> None:
    data = "{rows: 1000000, columns: 50, file: {format: csv, size_bytes: 2GiB}, container: pandas}"

    pool = host(estimated(client, fit("SGDClassifier", dataset=data), tmp_path))

    assert pool.peak_phase == "read-file"
    # The text, and the columns once in chunks and once joined.
    table = 1_000_000 * 50 * 8
    assert phases(pool)["read-file"] == pytest.approx(2 * GIB + 2 * table + 190 * MIB, rel=0.02)


def test_chunks_of_a_file_hold_less_than_the_whole(client: SizingClient, tmp_path: Path) -> None:
    whole, chunked = (
        "{rows: 1000000, columns: 50, file: {format: csv, size_bytes: 2GiB}}",
        "{rows: 1000000, columns: 50, file: {format: csv, size_bytes: 2GiB, chunk_rows: 50000}}",
    )
    sizes = [
        phases(host(estimated(client, fit("SGDClassifier", dataset=data), tmp_path)))["read-file"]
        for data in (whole, chunked)
    ]

    assert sizes[1] < sizes[0] - 2 * GIB + 300 * MIB


def test_a_split_copies_both_sides(client: SizingClient, tmp_path: Path) -> None:
    data = "{rows: 1000000, columns: 50, test_share: 0.2}"

    made = phases(host(estimated(client, fit("GaussianNB", dataset=data), tmp_path)))

    assert made["split"] - made["read"] == pytest.approx(1_000_000 * 50 * 8, rel=0.05)


def test_text_columns_count_by_how_they_are_kept(client: SizingClient, tmp_path: Path) -> None:
    sizes = {}
    for storage in ("object", "arrow", "categorical"):
        text = f"{{columns: 4, length: 12, distinct: 100, storage: {storage}}}"
        data = f"{{rows: 1000000, columns: 2, strings: {text}}}"
        pool = host(estimated(client, fit("GaussianNB", dataset=data), tmp_path))
        sizes[storage] = next(p.size.best_bytes for p in pool.phases[0].parts if "string" in p.name)

    assert sizes["arrow"] == 4 * 1_000_000 * (8 + 12)
    assert sizes["categorical"] < sizes["object"] < sizes["arrow"]


def test_images_are_columns_of_a_fit(client: SizingClient, tmp_path: Path) -> None:
    data = "{rows: 10000, dtype: uint8, image: {height: 32, width: 32}}"

    pool = host(estimated(client, fit("GaussianNB", dataset=data), tmp_path))

    features = next(p for p in pool.phases[0].parts if p.name == "features")
    assert features.size.best_bytes == 10_000 * 32 * 32 * 3


@pytest.mark.parametrize("scheduler", ["dask", "ray", "spark", "loky", "multiprocessing"])
def test_worker_pools_pay_for_their_processes(
    scheduler: str, client: SizingClient, tmp_path: Path
) -> None:
    alone = host(estimated(client, fit("SGDClassifier"), tmp_path)).peak.best_bytes
    pool = f"{{pool: {{scheduler: {scheduler}, workers_per_node: 4}}}}"

    many = host(estimated(client, fit("SGDClassifier", fit=pool), tmp_path))

    names = {part.name for phase in many.phases for part in phase.parts}
    assert {"workers", "scheduler"} <= names
    assert many.peak.best_bytes > alone


def test_more_nodes_hold_less_each(client: SizingClient, tmp_path: Path) -> None:
    peaks = []
    for nodes in (1, 4):
        pool = f"{{pool: {{scheduler: dask, workers_per_node: 2, nodes: {nodes}}}}}"
        text = fit("SGDClassifier", rows=20_000_000, fit=pool)
        peaks.append(host(estimated(client, text, tmp_path)).peak.best_bytes)

    assert peaks[1] < peaks[0] / 2


def test_trees_on_a_gpu_need_one(client: SizingClient, tmp_path: Path) -> None:
    text = fit("XGBClassifier, hyper_parameters: {device: cuda}").replace("scikit-learn", "xgboost")

    made = estimated(client, text, tmp_path)
    plans = client.recommend(asked(text, tmp_path)).recommendations

    assert [pool.pool for pool in made.pools] == [estimate_pb2.POOL_GPU, estimate_pb2.POOL_HOST]
    assert plans[0].offer.instance_type.accelerators.count == 1


def test_the_steps_of_a_host_add_up_to_its_peak(client: SizingClient, tmp_path: Path) -> None:
    pool = host(estimated(client, fit("RandomForestClassifier"), tmp_path))

    assert [step.name for step in pool.steps] == [
        "dataset",
        "preprocessing",
        "model",
        "intermediates",
        "framework",
    ]
    total = sum(step.size.best_bytes for step in pool.steps)
    assert total == phases(pool)[pool.peak_phase] == pool.peak.best_bytes


def keras(folder: Path, **more: str) -> str:
    model = json.loads(KERAS.read_text(encoding="utf-8"))["model"]
    (folder / "model.json").write_text(json.dumps(model), encoding="utf-8")
    lines = {
        "framework": "keras",
        "model": "{keras: ./model.json}",
        "training": "{precision: fp32, optimizer: adam, micro_batch: 64}",
    } | more
    return "".join(f"{name}: {value}\n" for name, value in lines.items())


def test_a_keras_model_is_read_from_the_file_that_to_json_wrote(
    client: SizingClient, tmp_path: Path
) -> None:
    made = estimated(client, keras(tmp_path), tmp_path)

    assert made.parameter_count == json.loads(KERAS.read_text(encoding="utf-8"))["parameters"]
    assert made.trainable_parameter_count == made.parameter_count
    assert client.recommend(asked(keras(tmp_path), tmp_path)).recommendations


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_keras_on_the_cpu_uses_no_gpu(backend: str, client: SizingClient, tmp_path: Path) -> None:
    text = keras(tmp_path, accelerator="cpu", backend=backend)

    made = estimated(client, text, tmp_path)

    assert [pool.pool for pool in made.pools] == [estimate_pb2.POOL_HOST]


LAYERS = """
framework: pytorch
accelerator: cpu
model:
  layers:
    layers:
      - {kind: conv2d, dimensions: {in: 3, out: 32, kernel: 3, padding: 1, height: 64, width: 64}}
      - {kind: batch-norm}
      - {kind: relu}
      - {kind: max-pool2d}
      - {kind: global-pool}
      - {kind: linear, dimensions: {out: 10}}
training: {precision: fp32, optimizer: adamw, micro_batch: 128}
dataset: {rows: 5000, image: {height: 64, width: 64}, container: in-memory}
"""


def test_a_list_of_layers_trains_on_the_cpu(client: SizingClient, tmp_path: Path) -> None:
    pool = host(estimated(client, LAYERS.replace("seq_len: 1", ""), tmp_path))

    assert {"load", "forward", "backward", "optimizer-step"} <= set(phases(pool))
    assert 0.5 * GIB < pool.peak.best_bytes < 2 * GIB


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (LAYERS.replace("kind: relu", "kind: wibble"), "workload.model.layers.layers.2.kind"),
        (LAYERS.replace("out: 32, ", ""), "workload.model.layers.layers.0.dimensions"),
        (LAYERS.replace("accelerator: cpu", "accelerator: tpu"), "workload.accelerator"),
        (LAYERS.replace("fp32", "fp16"), "workload.training.precision"),
        (LAYERS.replace("accelerator: cpu", "accelerator: gpu"), "workload.model.layers"),
        (fit("SGDClassifier", fit="{pool: {scheduler: dask}}"), "workload.fit.pool"),
        (
            fit("SGDClassifier", fit="{pool: {scheduler: loky, workers_per_node: 2, nodes: 2}}"),
            "workload.fit.pool.nodes",
        ),
        (
            fit("SGDClassifier", dataset="{rows: 5, columns: 2, file: {format: xls}}"),
            "workload.dataset.file.format",
        ),
        (
            fit("SGDClassifier", dataset="{rows: 5, columns: 2, test_share: 1.5}"),
            "workload.dataset.test_share",
        ),
        (
            fit("SGDClassifier", dataset="{rows: 5, columns: 2, strings: {columns: 1}}"),
            "workload.dataset.strings.length",
        ),
        (fit("SGDClassifier", host="{checkpoint_save: everything}"), "workload.host"),
        (fit("SGDClassifier", host="{worker_start: vfork}"), "workload.host.worker_start"),
        (
            fit("SGDClassifier", dataset="{rows: 5, image: {height: 3}}"),
            "workload.dataset.image.width",
        ),
    ],
)
def test_wrong_fields_are_named_with_what_would_be_right(
    text: str, field: str, client: SizingClient, tmp_path: Path
) -> None:
    with pytest.raises(SizingError) as refused:
        estimated(client, text, tmp_path)

    assert any(violation.field.startswith(field) for violation in refused.value.violations)


def test_a_keras_request_without_its_model_says_what_is_missing(
    client: SizingClient, tmp_path: Path
) -> None:
    wrong = "{precision: fp64, optimizer: adamx, micro_batch: 64}"
    text = keras(tmp_path, model="{preset: meta-llama/Llama-3.2-1B}", backend="jax", training=wrong)

    with pytest.raises(SizingError) as refused:
        estimated(client, text, tmp_path)

    fields = [violation.field for violation in refused.value.violations]
    assert fields == [
        "workload.backend",
        "workload.training.precision",
        "workload.training.optimizer.name",
        "workload.model.keras",
    ]


def test_a_container_limit_keeps_a_job_off_machines_that_would_hold_it(
    client: SizingClient, tmp_path: Path
) -> None:
    text = fit("GaussianNB", rows=20_000_000)
    limited = fit("GaussianNB", rows=20_000_000, host="{container_limit: 4GiB}")

    assert client.recommend(asked(text, tmp_path)).recommendations
    assert not client.recommend(asked(limited, tmp_path)).recommendations
