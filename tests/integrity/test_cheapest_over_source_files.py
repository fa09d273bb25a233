"""The first plan is the cheapest that fits: held against every row of the CSV files, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

import pytest

from sizewright.v1 import plan_pb2, sizing_service_pb2, workload_pb2
from sizewright_catalog.catalog import Catalog
from sizewright_catalog.snapshot_build.__main__ import build
from sizewright_catalog.values import InstanceType
from sizewright_server.estimation.preparation import prepare_any
from sizewright_server.planning.devices import (
    lacks,
    native_features,
    overhead_of,
    unsupported_reason,
)
from sizewright_server.planning.needs import Prepared
from sizewright_server.service import Sizing
from sizewright_server.servicer import dispatch
from sizewright_server.wire.requests import read_recommend
from source_prices import SourcePrice, source_prices

SOURCE = Path(__file__).parents[1] / "fixtures" / "catalog"
TODAY = date(2026, 11, 24)
NANOS = 10**9

Request = sizing_service_pb2.RecommendRequest


def training(
    preset: str, precision: str, seq_len: int, micro_batch: int, nodes: int = 1
) -> Request:
    """A fine-tune with AdamW and full checkpointing, its layout left open."""
    request = Request()
    request.workload.framework = "pytorch"
    request.workload.model.preset = preset
    run = request.workload.training
    run.precision, run.seq_len, run.micro_batch = precision, seq_len, micro_batch
    run.optimizer.name = "adamw"
    run.activation_checkpointing = workload_pb2.ACTIVATION_CHECKPOINTING_FULL
    run.parallelism.auto.SetInParent()
    request.constraints.max_nodes = nodes
    return request


def inference(preset: str, dtype: str, tokens: int, batch: int, nodes: int = 1) -> Request:
    """Prefill and some decode of a batch."""
    request = Request()
    request.workload.framework = "pytorch"
    request.workload.model.preset = preset
    run = request.workload.inference
    run.weight_dtype, run.input_tokens, run.batch, run.new_tokens = dtype, tokens, batch, 128
    request.constraints.max_nodes = nodes
    return request


QUESTIONS = {
    "bert": training("google-bert/bert-base-uncased", "fp32", 256, 16),
    "gpt2-xl": training("openai-community/gpt2-xl", "bf16-mixed", 1024, 2),
    "qwen 7B on three nodes": training("Qwen/Qwen2.5-7B", "bf16-mixed", 3072, 1, 3),
    "llama 13B in bf16": training("meta-llama/Llama-2-13b-hf", "bf16", 4096, 1, 2),
    "llama 70B on four nodes": training("meta-llama/Meta-Llama-3-70B", "bf16-mixed", 2048, 1, 4),
    "mistral 7B answers": inference("mistralai/Mistral-7B-v0.1", "fp16", 8192, 8),
    "qwen 72B answers": inference("Qwen/Qwen2.5-72B", "bf16", 2048, 4, 2),
}


@dataclass(frozen=True)
class Found:
    """The cheapest by brute force: its cost, and every offer that has it."""

    nanos: int
    offers: frozenset[tuple[str, str, str, str]]


def cheapest(app: Sizing, request: Request, folder: Path) -> Found | None:
    """Every priced row of the files, on every node count, under every layout."""
    question = read_recommend(request, app.catalog)
    prepared = prepare_any(question.workload)
    best: dict[int, set[tuple[str, str, str, str]]] = {}
    fewest = cache(lambda name: _fewest_nodes(app, prepared, name, request.constraints.max_nodes))
    for price in source_prices(folder, TODAY.isoformat()):
        nodes = fewest((price.provider, price.type))
        if nodes:
            cost = nodes * _nanos(price)
            key = (price.provider, price.type, price.region, price.term)
            best.setdefault(cost, set()).add(key)
    return Found(min(best), frozenset(best[min(best)])) if best else None


def _nanos(price: SourcePrice) -> int:
    return int((price.dollars * NANOS).to_integral_value(rounding="ROUND_FLOOR"))


def _fewest_nodes(app: Sizing, prepared: Prepared, name: tuple[str, str], most: int) -> int:
    """How many nodes of a type it takes; 0 where it does not fit on as many as are allowed."""
    kind = app.catalog.instance_type(app.catalog.find_type(*name))
    device = kind.device
    if device is None or kind.device_count == 0 or kind.unsizable_reason:
        return 0
    if unsupported_reason(device) or lacks(device, native_features(prepared.workload)):
        return 0
    counts = range(1, max(most, 1) + 1)
    return next((n for n in counts if any(_fitting(prepared, kind, n))), 0)


def _fitting(prepared: Prepared, kind: InstanceType, nodes: int) -> Iterator[bool]:
    """Whether each layout fits, by the estimate that is shown for it."""
    assert kind.device is not None
    if kind.slice < 1 and nodes * kind.device_count > 1:
        return
    for layout in prepared.layouts_for(nodes * kind.device_count, kind.device_count):
        made = prepared.estimate(layout, kind.device_count, overhead_of(kind.device))
        yield (
            made.pool("gpu").peak.high_bytes <= kind.gpu_usable_bytes
            and made.pool("host").peak.high_bytes <= kind.host_usable_bytes
        )


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Sizing:
    """The engine over a catalog built from the slice of the files kept here."""
    path = tmp_path_factory.mktemp("catalog") / "catalog.npz"
    build(SOURCE, path, TODAY.isoformat())
    return Sizing(Catalog.load(path), today=lambda: TODAY)


@pytest.mark.parametrize("name", QUESTIONS)
def test_no_row_of_the_source_files_is_cheaper_than_the_first_plan_and_fits(
    name: str, app: Sizing
) -> None:
    request = QUESTIONS[name]

    sent = dispatch(app, "/sizewright.v1.SizingService/Recommend", request)
    answer = sizing_service_pb2.RecommendResponse.FromString(sent)
    found = cheapest(app, request, SOURCE)

    if found is None:
        assert not [p for p in answer.recommendations if p.verdict == plan_pb2.VERDICT_FITS]
        return
    first = answer.recommendations[0]
    assert first.verdict == plan_pb2.VERDICT_FITS
    assert abs(first.cost_per_hour_nanos_usd - found.nanos) <= first.node_count
    key = (first.offer.provider, first.offer.instance_type.type, first.offer.region)
    assert key in {offer[:3] for offer in found.offers}
