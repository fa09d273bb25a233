"""Keras models by their JSON: what Keras counts, what training holds, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sizewright_server.estimation.keras.gpu import grown_bytes, replica_memory
from sizewright_server.estimation.keras.graph import KerasNetwork, network_from_json
from sizewright_server.estimation.keras.prepared import PreparedKeras
from sizewright_server.estimation.keras.workload import KerasWorkload
from sizewright_server.estimation.layout import Layout
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.workload import Dataset

SAVED = Path(__file__).parents[3] / "fixtures" / "keras"
NAMES = sorted(path.stem for path in SAVED.glob("*.json"))
GIB = 2**30


def saved(name: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((SAVED / f"{name}.json").read_text(encoding="utf-8"))
    return made


def network(name: str) -> KerasNetwork:
    return network_from_json(json.dumps(saved(name)["model"]))


def sequential(*layers: tuple[str, dict[str, Any]], shape: tuple[int | None, ...]) -> str:
    entries = [{"class_name": "InputLayer", "config": {"batch_shape": [None, *shape]}}]
    entries += [
        {"class_name": kind, "config": {"name": f"l{i}", **config}}
        for i, (kind, config) in enumerate(layers)
    ]
    return json.dumps({"class_name": "Sequential", "config": {"layers": entries}})


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_that_keras_counted(name: str) -> None:
    assert network(name).parameters == saved(name)["parameters"]


def test_models_of_keras_2_are_read_too() -> None:
    layers = [
        {
            "class_name": "Conv2D",
            "name": "c",
            "config": {
                "name": "c",
                "batch_input_shape": [None, 28, 28, 1],
                "filters": 8,
                "kernel_size": [3, 3],
                "activation": "relu",
            },
            "inbound_nodes": [],
        },
        {
            "class_name": "Flatten",
            "name": "f",
            "config": {"name": "f"},
            "inbound_nodes": [[["c", 0, 0, {}]]],
        },
        {
            "class_name": "Dense",
            "name": "d",
            "config": {"name": "d", "units": 10},
            "inbound_nodes": [[["f", 0, 0, {}]]],
        },
    ]
    text = json.dumps({"class_name": "Functional", "config": {"layers": layers}})

    made = network_from_json(text)

    assert made.parameters == 3 * 3 * 8 + 8 + 26 * 26 * 8 * 10 + 10
    assert made.input_elements == 28 * 28


def test_a_model_inside_a_model_is_part_of_it() -> None:
    inner = json.loads(sequential(("Dense", {"units": 3}), shape=(4,)))
    inner["config"]["name"] = "inner"
    layers = [
        {"class_name": "InputLayer", "config": {"batch_shape": [None, 4]}},
        {**inner, "config": {**inner["config"], "layers": inner["config"]["layers"][1:]}},
        {"class_name": "Dense", "config": {"name": "out", "units": 2}},
    ]
    text = json.dumps({"class_name": "Sequential", "config": {"layers": layers}})

    assert network_from_json(text).parameters == (4 * 3 + 3) + (3 * 2 + 2)


def test_a_dense_network_holds_what_the_backward_pass_reads() -> None:
    """Input 100, relu outputs 50 and 50; at the second, the gradient that came and the next."""
    text = sequential(
        ("Dense", {"units": 50, "activation": "relu"}),
        ("Dense", {"units": 50, "activation": "relu"}),
        ("Dense", {"units": 10}),
        shape=(100,),
    )

    made = network_from_json(text)

    assert made.training_elements() == 100 + 50 + 50 + (50 + 50)
    assert made.inference_elements() == 150


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "model.to_json()"),
        ('{"class_name": "Magic", "config": {}}', "'Magic' is no model of layers"),
        ('{"class_name": "Sequential", "config": {"layers": []}}', "holds no layer"),
        (sequential(("Wibble", {}), shape=(3,)), "'Wibble' is not known"),
        (sequential(("Dense", {}), shape=(3,)), "lacks or mistakes 'units'"),
        (sequential(("Dense", {"units": -1}), shape=(3,)), "units = -1"),
        (sequential(("Dense", {"units": 2}), shape=(None, 3)), "leaves a size open"),
        (
            sequential(("Conv2D", {"filters": 1, "kernel_size": [9, 9]}), shape=(4, 4, 1)),
            "a window",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_layer(text: str, words: str) -> None:
    with pytest.raises(UnsupportedWorkload, match=r"workload\.model\.keras") as refused:
        network_from_json(text)

    assert words in str(refused.value)


def test_an_open_length_takes_the_runs() -> None:
    text = sequential(("Embedding", {"input_dim": 100, "output_dim": 8}), shape=(None,))

    assert network_from_json(text, length=16).output_elements == 16 * 8


def work(name: str, **changed: Any) -> KerasWorkload:
    settings: dict[str, Any] = {"training": True, "batch": 32, "states_width": 8.0}
    return KerasWorkload(network(name), **(settings | changed))


def test_adam_on_a_gpu_keeps_weights_gradients_and_two_slots() -> None:
    one = replica_memory(work("mlp"), 1)
    parts = {part.name: part.size.best_bytes for part in (*one.kept, *one.step)}
    count = network("mlp").parameters

    assert parts["weights"] == pytest.approx(4 * count, rel=1e-3)
    assert parts["optimizer-state"] == 8 * count
    assert parts["gradients"] == 4 * count
    assert "reduction-buckets" not in parts


def test_a_mirrored_strategy_packs_the_gradients() -> None:
    two = replica_memory(work("mlp"), 2)

    packed = next(part for part in two.step if part.name == "reduction-buckets")

    assert packed.size.best_bytes == 2 * 4 * network("mlp").parameters


def test_mixed_precision_halves_activations_and_adds_casts() -> None:
    whole, mixed = (replica_memory(work("cnn", mixed=m), 1) for m in (False, True))

    sizes = [{p.name: p.size.best_bytes for p in m.step} for m in (whole, mixed)]

    assert sizes[1]["activations"] == sizes[0]["activations"] // 2
    assert sizes[1]["cast-weights"] == 2 * network("cnn").parameters


@pytest.mark.parametrize(
    ("peak", "mapped"), [(1, 2 * 2**20), (3 * 2**20, 6 * 2**20), (5 * GIB, 8 * GIB - 2 * 2**20)]
)
def test_memory_growth_maps_regions_that_double(peak: int, mapped: int) -> None:
    assert grown_bytes(peak) == mapped


def test_it_is_said_that_tensorflow_takes_all_of_a_gpu() -> None:
    prepared = PreparedKeras(work("mlp"))

    estimate = prepared.estimate(Layout(), 1, device_overhead(None, None))

    assert [notice.code for notice in estimate.notices] == ["tensorflow-takes-all-memory"]
    assert {pool.pool for pool in estimate.pools} == {"gpu", "host"}


def test_one_process_drives_all_gpus_of_a_node() -> None:
    columns = PreparedKeras(work("mlp")).columns([Layout(dp=1), Layout(dp=8)])

    assert columns.host_rank_best_bytes.tolist() == [0, 0]
    assert columns.host_node_best_bytes[0] == columns.host_node_best_bytes[1]
    assert columns.communicator_count.tolist() == [0, 1]


def test_arrays_are_held_three_times_by_tensorflow_and_once_by_torch() -> None:
    rows = Dataset(rows=100_000, container="in-memory")
    one = 100_000 * (network("mlp").input_elements * 4 + 8)
    peaks = {
        (backend, data is None): PreparedKeras(
            work("mlp", backend=backend, on_gpu=False, dataset=data)
        )
        .estimate(Layout(), 1, device_overhead(None, None))
        .pool("host")
        .peak.best_bytes
        for backend in ("tensorflow", "torch")
        for data in (None, rows)
    }

    assert peaks["tensorflow", False] - peaks["tensorflow", True] == pytest.approx(3 * one)
    assert peaks["torch", False] - peaks["torch", True] == pytest.approx(one)
