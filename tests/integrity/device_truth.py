"""What runs on which device, written down by hand from vendors' pages: nothing of the planner's.

A device that is not in the table is an error: whoever adds one says what runs on it.
"""

from __future__ import annotations

import re
from typing import Any

#: Names to generations, the first that matches.
GENERATIONS = (
    (r"TPU|Trainium|Inferentia|Gaudi|MI25$|MI100|V520|FPGA", "other"),
    (r"K80|M40|M60|P4$|P40|P100|GTX|Tesla", "pascal or older"),
    (r"V100|Titan-V", "volta"),
    (r"T4|RTX-20|Quadro", "turing"),
    (r"A10|A16|A30|A40|A2$|A800|RTX-30|RTX-A", "ampere"),
    (r"L4|L40|RTX-40|RTX-6000-Ada|RTX-5000-Ada|RTX-4500-Ada", "ada"),
    (r"H100|H200|H20|H800|GH200", "hopper"),
    (r"G?B200|G?B300|B100", "blackwell"),
    (r"RTX-50|RTX-PRO", "rtx blackwell"),
    (r"MI210|MI250", "cdna 2"),
    (r"MI300|MI308|MI325", "cdna 3"),
    (r"MI350|MI355", "cdna 4"),
)
TURING = frozenset({"int8", "vllm", "sglang", "CUDA", "vllm fp8", "vllm awq"})
AMPERE = TURING | {"bf16", "tf32", "fa2"}
ADA = AMPERE | {"fp8"}
CDNA_2 = frozenset({"bf16", "fa2", "int8", "vllm"})
CDNA_3 = CDNA_2 | {"fp8", "sglang", "vllm fp8"}
#: What each generation that PyTorch runs on has.
HAS: dict[str, frozenset[str]] = {
    "volta": frozenset({"vllm", "CUDA"}),
    "turing": TURING,
    "ampere": AMPERE,
    "ada": ADA,
    "hopper": ADA | {"fa3"},
    "blackwell": ADA | {"mxfp8", "nvfp4"},
    "rtx blackwell": ADA | {"nvfp4"},
    "cdna 2": CDNA_2,
    "cdna 3": CDNA_3 | {"tf32"},
    "cdna 4": CDNA_3 | {"mxfp8"},
}
ATTENTION = {"flash-attention-2": "fa2", "flash-attention-3": "fa3"}


def generation(device: str) -> str:
    """The generation of a device. Raises LookupError for one that is not in the table."""
    for pattern, name in GENERATIONS:
        if re.match(pattern, device):
            return name
    raise LookupError(f"{device} is in no generation: say what runs on it")


def runs(device: str, workload: dict[str, Any]) -> bool:
    """Whether a workload, as a request's JSON has it, runs on a device at all."""
    has = HAS.get(generation(device))
    return has is not None and needed(workload) <= has


def needed(workload: dict[str, Any]) -> set[str]:
    """What a workload asks of its device."""
    if "fit" in workload:
        return {"CUDA"}
    made = set()
    if "training" in workload:
        run = workload["training"]
        number = run["precision"].removesuffix("-mixed")
        made |= {number} & {"bf16", "tf32", "fp8", "mxfp8", "nvfp4"}
        made |= {"int8"} & {run.get("baseWeights", {}).get("format", "")}
    else:
        run = workload["inference"]
        engine, weights = run.get("engine", ""), run["weightDtype"]
        # Quantised weights are multiplied in bf16 unless told.
        plain = weights if weights in ("fp32", "bf16", "fp16") else "bf16"
        made |= {"bf16"} & {run.get("serving", {}).get("computeDtype", plain)}
        made |= {engine} & {"vllm", "sglang"}
        if engine == "vllm" and weights in ("fp8", "awq-int4"):
            made.add(f"vllm {weights.split('-')[0]}")
    made |= {ATTENTION[run["attention"]]} if run.get("attention") in ATTENTION else set()
    return made
