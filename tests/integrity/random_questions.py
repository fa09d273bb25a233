"""Questions as people ask them, drawn at random: workloads of every kind under every constraint.

Each is a RecommendRequest as JSON. Equal seeds give equal questions.
"""

from __future__ import annotations

from random import Random
from typing import Any

Json = dict[str, Any]

SMALL = (
    "openai-community/gpt2",
    "google-bert/bert-large-uncased",
    "meta-llama/Llama-3.2-1B",
)
LARGE = (
    "mistralai/Mistral-7B-v0.1",
    "Qwen/Qwen2.5-7B",
    "meta-llama/Meta-Llama-3-8B",
    "meta-llama/Llama-2-13b-hf",
    "meta-llama/Meta-Llama-3-70B",
    "Qwen/Qwen2.5-72B",
)
PROVIDERS = ("aws", "gcp", "azure", "nebius", "runpod", "lambda", "vast-ai", "verda")
REGIONS = ("us-east-1", "us-west-2", "eu-central-1", "us-central1", "europe-west4", "eastus")
ZONES = ("us-east-1a", "us-east-1b", "us-central1-a", "europe-west4-b")
DEVICES = (
    "T4",
    "L4",
    "A10G",
    "L40S",
    "A100-80GB-SXM",
    "H100-SXM",
    "H200-SXM",
    "MI300X",
    "V100-16GB",
)


def question(seed: int) -> Json:
    """The question of a seed."""
    draw = Random(seed)
    kinds = (_full, _full, _adapter, _inference, _serving, _fit)
    asked = draw.choice(kinds)(draw)
    asked["constraints"] = constraints(draw)
    asked["maxResults"] = draw.choice((1, 5, 20))
    if "fit" not in asked["workload"] and "serving" not in str(asked) and draw.random() < 0.3:
        asked["objective"] = draw.choice(("OBJECTIVE_COST_PER_JOB", "OBJECTIVE_TIME"))
        asked["job"] = {"samples": str(draw.choice((10_000, 5_000_000)))}
        if draw.random() < 0.5:
            asked["constraints"]["maxCostPerJobNanosUsd"] = str(
                draw.choice((2, 500, 50_000)) * 10**9
            )
    return asked


def _network(draw: Random, presets: tuple[str, ...]) -> Json:
    return {"framework": "pytorch", "model": {"preset": draw.choice(presets)}}


def _full(draw: Random) -> Json:
    """Full training, small or large."""
    precisions = ("fp32", "tf32", "fp16-mixed", "bf16-mixed", "bf16-mixed", "bf16", "fp8", "mxfp8")
    run: Json = {
        "precision": draw.choice(precisions),
        "seqLen": draw.choice((512, 2048)),
        "microBatch": draw.choice((1, 4, 16)),
        "optimizer": {"name": draw.choice(("adamw", "sgd", "adafactor"))},
        "activationCheckpointing": f"ACTIVATION_CHECKPOINTING_{draw.choice(('NONE', 'FULL'))}",
        "attention": draw.choice(("sdpa", "sdpa", "flash-attention-2", "flash-attention-3")),
        "parallelism": draw.choice(
            ({"auto": {}}, {"auto": {}}, {"explicit": {"dp": 8, "zero": 3}})
        ),
    }
    presets: tuple[str, ...] = SMALL if run["attention"] != "sdpa" or draw.random() < 0.4 else LARGE
    if run["attention"] != "sdpa":
        run["precision"] = "bf16-mixed"
        presets = ("meta-llama/Llama-3.2-1B", "meta-llama/Meta-Llama-3-8B")
    return {"workload": _network(draw, presets) | {"training": run}}


def _adapter(draw: Random) -> Json:
    """LoRA and QLoRA."""
    run: Json = {
        "precision": draw.choice(("bf16-mixed", "fp16-mixed")),
        "seqLen": draw.choice((512, 4096)),
        "microBatch": draw.choice((1, 4)),
        "optimizer": {"name": "adamw"},
        "activationCheckpointing": "ACTIVATION_CHECKPOINTING_FULL",
        "adapter": {"method": "lora", "rank": draw.choice((8, 64))},
        "parallelism": {"auto": {}},
    }
    base = draw.choice((None, "nf4", "int8"))
    if base:
        run["baseWeights"] = {"format": base}
    return {"workload": _network(draw, LARGE) | {"training": run}}


def _inference(draw: Random) -> Json:
    run = {
        "weightDtype": draw.choice(("fp16", "bf16")),
        "batch": draw.choice((1, 16)),
        "inputTokens": draw.choice((512, 8192)),
        "newTokens": 256,
    }
    return {"workload": _network(draw, SMALL + LARGE) | {"inference": run}}


def _serving(draw: Random) -> Json:
    engine = draw.choice(("vllm", "sglang"))
    formats = ("bf16", "fp16", "fp8") if engine == "vllm" else ("bf16", "fp16")
    run = {
        "engine": engine,
        "weightDtype": draw.choice(formats),
        "batch": draw.choice((4, 64)),
        "inputTokens": 4096,
        "newTokens": 512,
        "serving": {"maxModelLen": 8192},
    }
    return {"workload": _network(draw, LARGE) | {"inference": run}}


def _fit(draw: Random) -> Json:
    """Trees over a table, on the host or with CUDA."""
    on_gpu = draw.random() < 0.5
    parameters = {"n_estimators": "200", "max_depth": "8", "tree_method": '"hist"'}
    if on_gpu:
        parameters["device"] = '"cuda"'
    work = {
        "framework": "xgboost",
        "model": {
            "estimator": {
                "library": "xgboost",
                "className": "XGBClassifier",
                "hyperParameters": parameters,
            }
        },
        "fit": {"threads": 8, "operations": ["fit"]},
        "dataset": {
            "rows": str(draw.choice((1_000_000, 30_000_000))),
            "columns": str(draw.choice((20, 200))),
            "dtype": "float32",
            "classes": 2,
        },
    }
    return {"workload": work}


def constraints(draw: Random) -> Json:
    """One to five of everything that can be asked of an offer."""
    every: tuple[tuple[str, Any], ...] = (
        ("providers", draw.sample(PROVIDERS, 3)),
        ("regions", draw.sample(REGIONS, 3)),
        ("zones", draw.sample(ZONES, 2)),
        ("purchase", [f"PURCHASE_TERM_{draw.choice(('ON_DEMAND', 'SPOT'))}"]),
        ("minGpus", draw.choice((2, 8))),
        ("maxGpus", draw.choice((1, 4, 16))),
        ("devices", draw.sample(DEVICES, 3)),
        ("excludeDevices", draw.sample(DEVICES, 3)),
        ("cpuArchitectures", [draw.choice(("x86_64", "arm64"))]),
        ("minVcpus", draw.choice((8, 48))),
        ("headroom", draw.choice((0.1, 0.25))),
        ("maxPriceAge", f"{draw.choice((60, 200, 400)) * 86_400}s"),
        ("maxCostPerHourNanosUsd", str(draw.choice((1, 5, 40)) * 10**9)),
        ("listPricesOnly", True),
        ("minLocalDiskBytes", str(draw.choice((100, 1000, 10_000)) * 10**9)),
        ("maxInterruption", draw.choice((0.0, 0.05, 0.15))),
        ("minNetworkGbps", draw.choice((10, 50, 400))),
        ("fabrics", [draw.choice(("efa", "infiniband", "roce", "ethernet"))]),
        ("minNodes", 2),
    )
    chosen = dict(draw.sample(every, draw.randint(0, 4)))
    chosen["maxNodes"] = max(draw.choice((1, 1, 2, 4)), chosen.get("minNodes", 1))
    if draw.random() < 0.2:
        chosen["allowUnknownNetwork"] = True
    return chosen
