"""Presets: every bundled model that can be sized has the counted number of parameters exactly."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from sizewright.v1 import workload_pb2
from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.presets import UnknownPreset, find_preset, preset_names
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.workload import Workload
from sizewright_server.wire.violations import RequestInvalid
from sizewright_server.wire.workloads import WorkloadReader

#: Parameters counted on the meta device with the class named beside each.
COUNTS = Path(__file__).parents[2] / "fixtures" / "model-configs" / "parameter_counts.csv"

#: Counted with its class's default for a key that the collected configuration leaves out, a rank of
#: 1,536 for the queries; without it each of 27 layers has 1,574,400 parameters less.
COUNTED_OTHERWISE = {"deepseek-ai/DeepSeek-V2-Lite": 15_706_484_224}


def counted() -> dict[str, dict[str, str]]:
    with COUNTS.open(encoding="utf-8", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def training_of(name: str, head: str) -> Workload:
    message = workload_pb2.Workload(framework="pytorch")
    message.model.preset, message.model.head = name, head
    message.training.precision = "fp32"
    message.training.optimizer.name = "adamw"
    message.training.micro_batch, message.training.seq_len = 1, 16
    problems: list[Violation] = []
    workload = WorkloadReader(problems).read(message)
    if problems:
        raise RequestInvalid(problems)
    assert isinstance(workload, Workload)
    return workload


def parameters_of(name: str, counted_class: str) -> int | None:
    """What the engine counts; None for a model that it refuses by name."""
    # A bare "...Model" is the body alone; an LMHeadModel has its head.
    body = counted_class.endswith("Model") and not counted_class.endswith("LMHeadModel")
    try:
        return prepare(training_of(name, "none" if body else "")).parameter_count
    except (UnsupportedWorkload, RequestInvalid) as refused:
        if "not built yet" in str(refused):
            return None
        raise


def test_every_preset_is_one_that_was_counted_and_says_so_itself() -> None:
    rows = counted()

    assert set(preset_names()) == set(rows)
    for name in preset_names():
        preset, row = find_preset(name), rows[name]
        assert str(preset.parameters or "") == row["parameters_exact"], name
        assert (preset.counted_class, preset.verified) == (row["counted_class"], row["verified"])
        assert preset.source, name


def test_every_preset_that_can_be_sized_has_the_counted_parameters_to_the_unit() -> None:
    wrong, sized = {}, 0
    for name, row in counted().items():
        if not row["parameters_exact"]:
            continue
        made = parameters_of(name, row["counted_class"])
        if made is None:
            continue
        sized += 1
        exact = COUNTED_OTHERWISE.get(name, int(row["parameters_exact"]))
        if made != exact:
            wrong[name] = (made, exact)

    assert wrong == {}
    assert sized >= 236


def test_layers_of_sizes_of_their_own_add_up_to_the_sum_by_hand() -> None:
    # Summed over its block_configs; transformers has no class that could count them.
    assert parameters_of("nvidia/Llama-3_3-Nemotron-Super-49B-v1", "") == 49_867_145_216


@pytest.mark.parametrize("name", ["meta-llama/meta-llama-3-8b", "LLAMA-3-8B"])
def test_a_preset_is_found_by_alias_and_in_any_case(name: str) -> None:
    assert find_preset(name).name == "meta-llama/Meta-Llama-3-8B"


def test_an_unknown_preset_names_near_ones() -> None:
    with pytest.raises(UnknownPreset) as caught:
        find_preset("meta-llama/Meta-Llama-3-9B")

    assert "meta-llama/Meta-Llama-3-8B" in caught.value.near
