"""Techniques: what they promise of memory, and that a plan uses no more of them than it needs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sizewright_server.estimation.preparation import prepare_any
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.workload import (
    HostConditions,
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)
from sizewright_server.planning.techniques import RULES, figures, forms
from sizewright_server.planning.variants import combine, strongest

PRESETS = ("openai-community/gpt2", "meta-llama/Llama-3.2-1B", "google-bert/bert-large-uncased")
LAYOUTS = (
    Layout(),
    Layout(dp=4),
    Layout(dp=4, zero=2, sharding="deepspeed"),
    Layout(dp=4, zero=3, sharding="fsdp2"),
    Layout(dp=2, tp=2),
)

workloads = st.builds(
    lambda preset, precision, name, step, batch, tokens, checkpointing, attention, workers: (
        Workload(
            ModelSource(find_preset(preset).config, preset=preset),
            Training(
                precision=precision,
                optimizer=Optimizer(name, step),
                micro_batch=batch,
                seq_len=tokens,
                checkpointing=checkpointing,
                attention=attention,
            ),
            host=HostConditions(loader_workers=workers),
        )
    ),
    st.sampled_from(PRESETS),
    st.sampled_from(["fp32", "bf16", "bf16-mixed"]),
    st.sampled_from(["adamw", "sgd", "lion"]),
    st.sampled_from(["foreach", "fused", "for-loop"]),
    st.sampled_from([1, 2, 8]),
    st.sampled_from([128, 1024]),
    st.sampled_from(["none", "selective", "full"]),
    st.sampled_from(["eager", "sdpa"]),
    st.sampled_from([0, 4]),
)


def test_every_technique_has_its_figures_and_its_rule() -> None:
    assert set(figures()) == set(RULES)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(workloads, st.sampled_from([n for n, f in figures().items() if f.never_adds]))
def test_a_technique_that_never_adds_memory_never_does(workload: Workload, name: str) -> None:
    before = prepare_any(workload).columns(LAYOUTS)

    for changed, _ in forms(name, workload):
        after = prepare_any(changed).columns(LAYOUTS)
        assert (after.gpu_reserved_high_bytes <= before.gpu_reserved_high_bytes).all()
        assert (after.host_rank_high_bytes <= before.host_rank_high_bytes).all()
        assert (after.host_node_high_bytes <= before.host_node_high_bytes).all()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(workloads)
def test_of_forms_that_never_add_the_later_needs_no_more(workload: Workload) -> None:
    for name in ("gradient-accumulation", "fewer-loader-workers"):
        sizes = [prepare_any(changed).columns(LAYOUTS) for changed, _ in forms(name, workload)]
        for milder, stronger in pairwise(sizes):
            assert (stronger.gpu_reserved_high_bytes <= milder.gpu_reserved_high_bytes).all()
            assert (stronger.host_rank_high_bytes <= milder.host_rank_high_bytes).all()


def llama(**given: object) -> Workload:
    """A Llama 3.2 1B training."""
    preset = "meta-llama/Llama-3.2-1B"
    run = Training(
        precision="bf16-mixed", optimizer=Optimizer("adamw"), micro_batch=4, seq_len=1024
    )
    return Workload(ModelSource(find_preset(preset).config, preset=preset), run, **given)  # type: ignore[arg-type]


def named(pairs: list[tuple[str, int]]) -> Iterator[str]:
    """Names of the techniques that applied."""
    return (step.name for step in combine(llama(), pairs)[1])


def test_what_does_not_apply_after_another_technique_is_left_out() -> None:
    found = list(named([("gradient-accumulation", 2), ("step-in-backward", 1)]))

    assert found == ["gradient-accumulation"]


@pytest.mark.parametrize("technique", sorted(figures()))
def test_a_technique_that_does_not_apply_has_no_forms(technique: str) -> None:
    everything = strongest(llama(), list(figures()))[-1][0]

    assert technique in figures()
    for changed, applied in forms(technique, everything):
        assert changed != everything
        assert applied.changes


def test_the_documentation_lists_every_technique_and_whether_it_changes_results() -> None:
    page = (Path(__file__).parents[3] / "docs" / "planning.md").read_text(encoding="utf-8")
    listed = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[1] in ("no", "yes"):
            for name in cells[0].split(","):
                listed[name.strip(" `")] = cells[1] == "yes"

    assert listed == {name: known.changes_results for name, known in figures().items()}
