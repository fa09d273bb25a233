"""The questions of the bench: real models, and settings that no two of them share."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

from sizewright.v1 import sizing_service_pb2
from sizewright_client import load_request

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE = EXAMPLES / "llama3-8b-sft.yaml"
#: Decoders of 1 B to 70 B parameters, whose layouts divide by 8.
PRESETS = (
    "meta-llama/Meta-Llama-3-8B",
    "meta-llama/Llama-2-7b-hf",
    "meta-llama/Llama-2-13b-hf",
    "meta-llama/Llama-3.2-1B",
    "meta-llama/Llama-3.2-3B",
    "meta-llama/Meta-Llama-3-70B",
    "mistralai/Mistral-7B-v0.1",
    "Qwen/Qwen2.5-7B",
    "Qwen/Qwen2.5-1.5B",
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
)
#: (data-parallel size, ZeRO stage) on eight GPUs.
LAYOUTS = ((8, 3), (8, 2), (8, 1))
REGIONS = ("us-east-1", "us-west-2", "eu-west-1", "eastus", "westus3", "us-central1")

Request = sizing_service_pb2.RecommendRequest


def example(name: str = EXAMPLE.stem) -> Request:
    """A question of the examples, the demo's unless told."""
    return load_request(str(EXAMPLES / f"{name}.yaml"))


def new_workloads(*, explicit: bool) -> Iterator[Request]:
    """Workloads without end, each with a model and sequence length no other one has."""
    for i in count():
        request = example()
        training = request.workload.training
        request.workload.model.preset = PRESETS[i % len(PRESETS)]
        training.seq_len = 512 + 8 * (i // len(PRESETS))
        if explicit:
            dp, zero = LAYOUTS[i % len(LAYOUTS)]
            training.parallelism.explicit.dp = dp
            training.parallelism.explicit.zero = zero
        yield request


def with_techniques() -> Iterator[Request]:
    """New workloads, with all layouts and the techniques that leave the results as they are."""
    for request in new_workloads(explicit=False):
        request.techniques[:] = ["exact"]
        yield request


def seen_before() -> Iterator[Request]:
    """One workload under constraints without end: budgets, regions, price ages, providers."""
    for i in count():
        request = example()
        constraints = request.constraints
        constraints.max_cost_per_hour_nanos_usd = 10**11 + i
        if i % 4 == 1:
            constraints.providers[:] = [("aws", "gcp", "azure")[i // 4 % 3]]
        if i % 4 == 2:
            constraints.ClearField("providers")
            constraints.regions[:] = REGIONS[: 1 + i // 4 % len(REGIONS)]
        if i % 4 == 3:
            constraints.max_price_age.seconds = 86_400 * (1000 + i)
        yield request
