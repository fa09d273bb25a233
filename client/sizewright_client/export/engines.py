"""Commands that start a serving engine as it was estimated: vLLM and SGLang.

What the request leaves to the engine is left to it here as well: the estimate has its defaults.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

from sizewright.v1 import workload_pb2
from sizewright_client.export.ledger import Ledger
from sizewright_client.export.selection import ExportError, Selection

GIB = 2**30
TORCH_NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
#: Quantisations that both engines make of 16-bit weights as they load.
MADE_ON_LOAD = {"fp8": "fp8", "bnb-nf4": "bitsandbytes", "nf4": "bitsandbytes"}
#: Quantisations that the checkpoint stores, and what the engines call the kernels that read them.
STORED = {
    "fp8-block": "fp8",
    "fbgemm-fp8": "fbgemm_fp8",
    "int8-w8a8": "compressed-tensors",
    "w4a16": "compressed-tensors",
    "gptq-int4": "gptq",
    "gptq-int8": "gptq",
    "awq-int4": "awq",
    "mxfp4": "mxfp4",
    "nvfp4": "modelopt_fp4",
    "torchao-int4": "torchao",
    "torchao-int8": "torchao",
}
#: Faster kernels for the same files, from this compute capability on.
MARLIN, MARLIN_FROM = ("gptq", "awq"), 8.0
#: What SGLang does not have of these, by its own list of choices.
NOT_IN_SGLANG = ("fbgemm_fp8", "torchao")


def vllm(selection: Selection) -> str:
    """A `vllm serve` command."""
    run, said = _serving(selection, "vllm")
    layout = selection.plan.layout
    words = [f"--tensor-parallel-size={layout.tp}"]
    if layout.pp > 1:
        words.append(f"--pipeline-parallel-size={layout.pp}")
    if layout.dp > 1:
        words.append(f"--data-parallel-size={layout.dp}")
    words += _across_nodes(selection)
    if layout.ep > 1:
        if layout.ep != layout.tp * layout.dp:
            raise ExportError(
                f"vLLM spreads experts over all {layout.tp * layout.dp} ranks of tp and dp, not "
                f"over ep {layout.ep}"
            )
        words.append("--enable-expert-parallel")
    words.append(f"--max-model-len={_length(run, said)}")
    words += _vllm_limits(said) + _number_types(selection, said, "vllm")
    words += _vllm_extras(said)
    environment = _vllm_environment(said)
    return _command(selection, said, [*environment, "vllm", "serve", selection.model_name], words)


def sglang(selection: Selection) -> str:
    """An `sglang.launch_server` command."""
    run, said = _serving(selection, "sglang")
    layout = selection.plan.layout
    words = [f"--model-path={selection.model_name}", f"--tp-size={layout.tp}"]
    for name in ("pp", "dp", "ep"):
        if getattr(layout, name) > 1:
            words.append(f"--{name}-size={getattr(layout, name)}")
    if selection.plan.node_count > 1:
        nodes = selection.plan.node_count
        words += [f"--nnodes={nodes}", "--node-rank=$NODE_RANK"]
        words.append("--dist-init-addr=$HEAD_NODE:29500")
    words.append(f"--context-length={_length(run, said)}")
    words += _sglang_limits(said) + _number_types(selection, said, "sglang")
    words += _sglang_extras(said)
    return _command(selection, said, ["python", "-m", "sglang.launch_server"], words)


def _serving(selection: Selection, engine: str) -> tuple[workload_pb2.Inference, Ledger]:
    """The run and the ledger of its settings. Raises ExportError where another engine was sized."""
    work = selection.workload
    if work.WhichOneof("run") != "inference":
        raise ExportError(f"{engine} serves; the workload trains or fits")
    sized = work.inference.engine or "transformers"
    if sized != engine:
        raise ExportError(
            f"the workload was sized for {sized}, whose memory is another; "
            f"set inference.engine: {engine}"
        )
    said = Ledger("inference", work.inference)
    said.describes("engine", "batch", "input_tokens", "new_tokens", "parallelism", "padded_batches")
    said.describes("serving.engine_version", "serving.quantisation_group_size", "attention")
    return work.inference, said


def _length(run: workload_pb2.Inference, said: Ledger) -> int:
    """Longest sequence the engine admits."""
    stated: int = said.take("serving.max_model_len")
    return stated or run.input_tokens + run.new_tokens


def _across_nodes(selection: Selection) -> list[str]:
    layout, nodes = selection.plan.layout, selection.plan.node_count
    if nodes == 1:
        return []
    words = ["--distributed-executor-backend=ray"] if layout.tp * layout.pp > 1 else []
    return [*words, "--data-parallel-backend=ray"] if layout.dp > 1 else words


def _options(said: Ledger, options: dict[str, str]) -> list[str]:
    """`--option=value` for each stated setting."""
    return [
        f"--{option}={_number(said.take(path))}"
        for path, option in options.items()
        if said.states(path)
    ]


def _switches(said: Ledger, flags: dict[str, str]) -> list[str]:
    """The flag of each setting that is on."""
    return [flag for path, flag in flags.items() if said.take(path)]


def _offload(said: Ledger) -> list[str]:
    if not said.states("serving.cpu_offload_bytes"):
        return []
    return [f"--cpu-offload-gb={_gib(said.take('serving.cpu_offload_bytes'))}"]


def _adapters(said: Ledger, most: str) -> list[str]:
    """How many adapters are served; `most` is the engine's option for their number."""
    if not said.states("serving.adapters.count"):
        return []
    count, rank = said.take("serving.adapters.count"), said.take("serving.adapters.rank")
    return ["--enable-lora", f"--{most}={count}", f"--max-lora-rank={rank}"]


def _vllm_limits(said: Ledger) -> list[str]:
    words = _options(
        said,
        {
            "serving.gpu_memory_utilization": "gpu-memory-utilization",
            "serving.max_num_seqs": "max-num-seqs",
            "serving.max_num_batched_tokens": "max-num-batched-tokens",
            "serving.block_size": "block-size",
        },
    )
    if said.states("serving.chunked_prefill"):
        no = "" if said.take("serving.chunked_prefill") else "no-"
        words.append(f"--{no}enable-chunked-prefill")
    return words


def _vllm_extras(said: Ledger) -> list[str]:
    flags = {
        "serving.enforce_eager": "--enforce-eager",
        "serving.shared_prefix_tokens": "--enable-prefix-caching",
        "serving.disable_hybrid_cache": "--disable-hybrid-kv-cache-manager",
        "serving.skip_multimodal_profiling": "--skip-mm-profiling",
    }
    words = _switches(said, flags) + _offload(said)
    if said.states("serving.swap_space_bytes"):
        words.append(f"--swap-space={_gib(said.take('serving.swap_space_bytes'))}")
    words += _adapters(said, "max-loras")
    draft = _draft(said)
    if draft:
        words.append(f"--speculative-config={json.dumps(draft)}")
    return words


def _vllm_environment(said: Ledger) -> list[str]:
    made = []
    if said.take("serving.engine_generation"):
        made.append(f"VLLM_USE_V1={int(said.peek('serving.engine_generation') == 'v1')}")
    if said.states("serving.graphs_in_budget"):
        on = int(said.take("serving.graphs_in_budget"))
        made.append(f"VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS={on}")
    return made


def _sglang_limits(said: Ledger) -> list[str]:
    words = _options(
        said,
        {
            "serving.gpu_memory_utilization": "mem-fraction-static",
            "serving.max_num_seqs": "max-running-requests",
            "serving.max_num_batched_tokens": "chunked-prefill-size",
            "serving.block_size": "page-size",
        },
    )
    if said.states("serving.chunked_prefill") and not said.take("serving.chunked_prefill"):
        words.append("--chunked-prefill-size=-1")
    return words


def _sglang_extras(said: Ledger) -> list[str]:
    flags = {
        "serving.enforce_eager": "--disable-cuda-graph",
        "serving.data_parallel_attention": "--enable-dp-attention",
        "serving.disable_hybrid_cache": "--disable-hybrid-swa-memory",
    }
    words = _switches(said, flags) + _offload(said) + _adapters(said, "max-loras-per-batch")
    # The radix cache shares prefixes unless it is switched off.
    said.describes("serving.shared_prefix_tokens")
    draft = _draft(said)
    if draft:
        words += ["--speculative-algorithm=STANDALONE"]
        words.append(f"--speculative-draft-model-path={draft['model']}")
        words.append(f"--speculative-num-draft-tokens={draft['num_speculative_tokens']}")
    return words


def _draft(said: Ledger) -> dict[str, Any]:
    tokens = said.take("serving.speculative.tokens")
    if not tokens:
        return {}
    model = said.peek("serving.speculative.draft.preset") or "path/to/draft"
    said.describes("serving.speculative")
    return {"model": model, "num_speculative_tokens": tokens}


def _number_types(selection: Selection, said: Ledger, engine: str) -> list[str]:
    """Types of weights, of the computation and of the cache."""
    weights, words = said.take("weight_dtype"), []
    compute = said.take("serving.compute_dtype") or (weights if weights in TORCH_NAMES else "")
    if compute:
        words.append(f"--dtype={TORCH_NAMES[compute]}")
    if weights and weights not in TORCH_NAMES:
        words.append(f"--quantization={_quantisation(selection, weights, engine)}")
    cached = said.take("kv_dtype")
    if cached == "fp8":
        words.append(f"--kv-cache-dtype={'fp8' if engine == 'vllm' else 'fp8_e4m3'}")
    elif cached and cached != (compute or "bf16"):
        raise ExportError(f"{engine} keeps no cache of inference.kv_dtype: {cached}")
    return words


def _quantisation(selection: Selection, weights: str, engine: str) -> str:
    missing = NOT_IN_SGLANG if engine == "sglang" else ()
    methods = {name: one for name, one in (MADE_ON_LOAD | STORED).items() if one not in missing}
    if weights not in methods:
        raise ExportError(
            f"{engine} has no word for inference.weight_dtype: {weights}; known are "
            f"{', '.join([*TORCH_NAMES, *methods])}"
        )
    method, found = methods[weights], selection.accelerators
    capable = found is None or float(found.compute_capability or 0) >= MARLIN_FROM
    return f"{method}_marlin" if method in MARLIN and capable else method


def _command(selection: Selection, said: Ledger, start: list[str], words: list[str]) -> str:
    """The command, under what must be known of it."""
    engine, left = selection.workload.inference.engine, said.left()
    if left:
        raise ExportError(f"{engine} has no option for {'; '.join(left)}")
    stated, nodes = selection.engine_version, selection.plan.node_count
    lines = [f"# sized with the rules of {engine} {stated}"] if stated else []
    lines += [
        f"# {warning.message}"
        for warning in selection.plan.estimate.warnings
        if warning.code == "engine-version-not-stated"
    ]
    if engine == "vllm" and nodes > 1:
        lines.append(f"# runs on the first node of a Ray cluster of {nodes} nodes")
    weights = selection.workload.inference.weight_dtype
    if weights in STORED:
        lines.append(f"# the model must be a checkpoint that stores {weights} weights")
    quoted = [word if "$" in word else shlex.quote(word) for word in words]
    return "\n".join([*lines, " \\\n  ".join([" ".join(start), *quoted]), ""])


def _number(value: float | int) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:g}"
