"""Mistakes that other estimators are known for, so that this one does not make them.

Parameter counts and byte formulas are those of the modelling code; each test says whose mistake.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.memory import MemoryEstimate
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.workload import (
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

LLAMA_2_7B = find_preset("meta-llama/Llama-2-7b-hf").config
LLAMA_3_8B = find_preset("meta-llama/Meta-Llama-3-8B").config


def training(**changes: Any) -> Training:
    run = Training("bf16", Optimizer("adamw", "fused"), 1, 4096, layout=Layout())
    return replace(run, **changes)


def estimate(config: dict[str, Any], run: Training) -> MemoryEstimate:
    prepared = prepare(Workload(ModelSource(config), run))
    return prepared.estimate(Layout(), 1, device_overhead(None, None))


def part_bytes(of: MemoryEstimate, phase: str, part: str) -> int:
    phases = {p.name: p for p in of.pool("gpu").phases}
    return sum(p.size.best_bytes for p in phases[phase].parts if p.name == part)


def test_the_untied_head_counts() -> None:
    """accelerate's estimate drops lm_head: 7.505 B for Llama-3-8B, 6.607 B for Llama-2-7B."""
    assert prepare(Workload(ModelSource(LLAMA_3_8B), training())).parameter_count == 8_030_261_248
    assert prepare(Workload(ModelSource(LLAMA_2_7B), training())).parameter_count == 6_738_415_616


def test_grouped_queries_make_keys_and_values_smaller() -> None:
    """llm-sizer takes every query head to have keys and values of its own."""
    whole = {**LLAMA_3_8B, "num_key_value_heads": LLAMA_3_8B["num_attention_heads"]}
    run = training()
    saved = part_bytes(estimate(whole, run), "forward", "activations") - part_bytes(
        estimate(LLAMA_3_8B, run), "forward", "activations"
    )
    # Keys turned and values, at 24 of 32 heads less, are what every layer saves less.
    assert saved >= 32 * 2 * 4096 * 24 * 128 * 2


def test_full_recomputation_leaves_one_hidden_state_a_layer() -> None:
    """Megatron's theoretical report gives 18.6 GB of activations with and without it."""
    none = part_bytes(estimate(LLAMA_2_7B, training()), "forward", "activations")
    full = part_bytes(
        estimate(LLAMA_2_7B, training(checkpointing="full")), "forward", "activations"
    )
    hidden = 4096 * 4096 * 2
    assert none > 20 * 2**30
    assert full == pytest.approx(32 * hidden, abs=12 * hidden)


def test_the_loss_takes_fourteen_bytes_a_logit() -> None:
    """Most count the logits once, in their own type; their fp32 log-probabilities and two
    gradients come on top, beside the logits the output keeps."""
    run = training(checkpointing="full")
    loss = part_bytes(estimate(LLAMA_3_8B, run), "loss", "activations")
    checkpoints = 32 * 4096 * 4096 * 2
    assert loss == pytest.approx(14 * 4096 * 128_256 + checkpoints, rel=0.03)


def test_the_foreach_step_makes_one_more_copy_of_the_parameters() -> None:
    """Most leave it out; fused steps make none."""
    foreach = estimate(LLAMA_2_7B, training(optimizer=Optimizer("adamw", "foreach")))
    fused = estimate(LLAMA_2_7B, training())
    made = part_bytes(foreach, "optimizer-step", "step-temporaries")
    assert made == pytest.approx(6_738_415_616 * 2, rel=1e-3)
    assert part_bytes(fused, "optimizer-step", "step-temporaries") == 0


def test_no_share_of_the_rest_is_called_overhead() -> None:
    """ftune adds a fifth of everything as "CUDA overhead": 19.9 GB for an 8B model."""
    small = estimate({**LLAMA_2_7B, "num_hidden_layers": 2}, training())
    large = estimate(LLAMA_2_7B, training())
    for part in ("device-context", "library-workspaces"):
        assert part_bytes(small, "loss", part) == part_bytes(large, "loss", part) < 2**30


def test_gradients_are_not_there_before_they_are_made() -> None:
    """Sums of weights, gradients, states and activations count what is never there at once."""
    found = estimate(LLAMA_2_7B, training())
    assert part_bytes(found, "forward", "gradients") == 0
    assert json.dumps([p.name for p in found.pool("gpu").phases]) == json.dumps(
        ["forward", "loss", "backward", "optimizer-step"]
    )
