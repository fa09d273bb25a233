"""Nothing cheaper fits, and nothing unfit is offered: held against brute force."""

from __future__ import annotations

from datetime import date
from itertools import product

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brute_force import fitting_plans
from sizewright_server.engines import bundled_sizing
from sizewright_server.estimation.preparation import prepare_any
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.workload import ModelSource, Optimizer, Training, Workload
from sizewright_server.planning.plan import Constraints
from sizewright_server.planning.planner import Question, recommend
from sizewright_server.planning.techniques import figures, forms
from sizewright_server.planning.variants import Combination, combine, strongest

TODAY = date(2026, 11, 24)
PRESETS = (
    "openai-community/gpt2",
    "meta-llama/Llama-3.2-1B",
    "meta-llama/Meta-Llama-3-8B",
    "google-bert/bert-large-uncased",
)
TECHNIQUES = (
    "fused-optimizer-step",
    "gradient-accumulation",
    "activation-checkpointing",
    "pure-bf16",
    "fused-linear-loss",
    "8-bit-optimizer",
    "optimizer-offload",
    "mixed-precision",
    "step-in-backward",
    "selective-checkpointing",
)

workloads = st.builds(
    lambda preset, precision, name, batch, tokens, checkpointing: Workload(
        ModelSource(find_preset(preset).config, preset=preset),
        Training(
            precision=precision,
            optimizer=Optimizer(name),
            micro_batch=batch,
            seq_len=tokens,
            checkpointing=checkpointing,
        ),
    ),
    st.sampled_from(PRESETS),
    st.sampled_from(["fp32", "bf16", "bf16-mixed"]),
    st.sampled_from(["adamw", "sgd"]),
    st.sampled_from([1, 4, 12]),
    st.sampled_from([512, 2048]),
    st.sampled_from(["none", "full"]),
)
gpu_types = sorted({int(i) for i in bundled_sizing().index.type.tolist()})
constraint_sets = st.builds(
    lambda types, nodes, headroom, few, most, budget: Constraints(
        instance_types=tuple(bundled_sizing().catalog.type_names[i] for i in types),
        max_nodes=nodes,
        headroom=headroom,
        min_gpus=few,
        max_gpus=most,
        max_cost_per_hour_nanos_usd=budget,
    ),
    st.lists(st.sampled_from(gpu_types), min_size=1, max_size=12, unique=True),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([0.0, 0.1]),
    st.sampled_from([0, 2]),
    st.sampled_from([None, 8]),
    st.sampled_from([None, 5 * 10**9]),
)
allowed = st.lists(st.sampled_from(TECHNIQUES), max_size=3, unique=True)


def every_combination(workload: Workload, techniques: list[str]) -> list[Combination]:
    """The whole space: every form of every technique with every form of every other."""
    names = [name for name in figures() if name in techniques]
    numbers = product(*(range(len(forms(name, workload)) + 1) for name in names))
    made = (combine(workload, list(zip(names, picked, strict=True))) for picked in numbers)
    return list({steps: (changed, steps) for changed, steps in made if steps}.values())


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(workloads, constraint_sets, allowed, st.sampled_from([1, 5]))
def test_the_list_is_the_cheapest_of_all_that_fits(
    workload: Workload, constraints: Constraints, techniques: list[str], most: int
) -> None:
    app = bundled_sizing()
    names = set(constraints.instance_types)
    catalog = app.catalog
    numbers = [
        i
        for i, kind in enumerate(catalog.offers.type.tolist())
        if catalog.type_names[kind] in names
        and catalog.offers.term[i] < 2
        and catalog.offers.availability[i] == 0
    ]
    possible = every_combination(workload, techniques)
    question = Question(
        prepare_any(workload),
        constraints,
        max_results=most,
        today=TODAY,
        prepare=prepare_any,
        combinations=tuple(strongest(workload, techniques)),
    )

    result = recommend(question, app.index)

    slow = list(fitting_plans(catalog, numbers, workload, constraints, possible))
    budget = constraints.max_cost_per_hour_nanos_usd
    cheapest: dict[str, int] = {}
    for found in slow:
        if budget is None or found.nanos <= budget:
            cheapest[found.offer] = min(found.nanos, cheapest.get(found.offer, found.nanos))
    offered = [p.cost_per_hour_nanos_usd for p in result.plans if p.verdict == "fits"]
    assert offered == sorted(cheapest.values())[:most]
    for plan in result.plans:
        if plan.verdict == "fits":
            assert plan.offer is not None
            assert cheapest[plan.offer.name] == plan.cost_per_hour_nanos_usd
