"""Which layouts contradict the model, the run or the library that shards, and why."""

from __future__ import annotations

from collections.abc import Iterator

from sizewright_server.estimation.architecture import Architecture
from sizewright_server.estimation.layout import Layout
from sizewright_server.estimation.megatron_checks import megatron_settings, megatron_stages
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.recurrence_checks import has_mamba
from sizewright_server.estimation.sparse_checks import sparse_attention
from sizewright_server.estimation.workload import Inference, Training

#: What each library can shard, by ZeRO stage.
STAGES_OF = {
    "ddp": (0,),
    "deepspeed": (1, 2, 3),
    "fsdp1": (3,),
    "fsdp2": (3,),
    "megatron": (0, 1),
}
FSDP = ("fsdp1", "fsdp2")
MEGATRON_PRECISIONS = ("bf16", "fp16", "bf16-mixed", "fp16-mixed", "fp8", "mxfp8")
#: Formats whose layers hold packed rows. transformers 5.23 splits quantised layers over
#: tensor-parallel ranks where these have a path of their own (`_hf_quantized_needs_local_tp`:
#: torchao's and fine-grained fp8's), which bitsandbytes', GPTQ's and AWQ's have not.
PACKED_FORMATS = frozenset({"nf4", "fp4", "int8", "gptq-int4", "gptq-int8", "awq-int4"})
#: Segments that `megatron.py` describes.
MEGATRON_SEGMENTS = {
    "embedding",
    "block",
    "head",
    "encoder-embedding",
    "encoder-end",
    "decoder-embedding",
    "decoder-head",
}

#: A wrong field, and what is wrong with it.
Finding = tuple[str, str]


def legal_tensor_parallel(architecture: Architecture) -> tuple[int, ...]:
    """Tensor-parallel sizes the model allows: they divide the heads and the feed-forward width.

    Key/value heads must divide, or be divided by, the size (they are replicated then).
    """
    if has_mamba(architecture):
        return (1,)
    sizes = architecture.sizes
    return tuple(
        t
        for t in range(1, sizes.heads + 1)
        if sizes.heads % t == 0
        and sizes.ffn % t == 0
        and (sizes.kv_heads % t == 0 or t % sizes.kv_heads == 0)
    )


def check_layout(
    architecture: Architecture, layout: Layout, field: str, run: Training | Inference
) -> None:
    """Raises UnsupportedWorkload with every way in which an explicit layout contradicts the model,
    the run, its library or itself."""
    wrong = [*_tensor(architecture, layout), *_packed(layout, run), *_stages(layout)]
    if isinstance(run, Inference):
        wrong += _inference(layout)
    else:
        wrong += _pipeline(architecture, layout, run)
        wrong += _context(architecture, layout, run)
        wrong += _experts(architecture, layout)
        wrong += _offload(layout, run)
        wrong += _megatron(architecture, layout, run)
        wrong += sparse_attention(architecture, layout)
    if wrong:
        raise UnsupportedWorkload(*(Violation(f"{field}.{name}", text) for name, text in wrong))


def pipeline_layers(architecture: Architecture) -> int:
    """Layers a pipeline can spread over its stages."""
    return sum(run.count for run in architecture.runs if run.role == "block")


def _tensor(architecture: Architecture, layout: Layout) -> Iterator[Finding]:
    sizes, legal = architecture.sizes, legal_tensor_parallel(architecture)
    if layout.tp > 1 and has_mamba(architecture):
        yield (
            "tp",
            "Mamba layers have no tensor-parallel form: transformers has a plan for their experts"
            " alone; use 1",
        )
    elif layout.tp not in legal:
        yield (
            "tp",
            f"{layout.tp} does not divide {sizes.heads} heads, {sizes.kv_heads} key/value heads"
            f" and feed-forward width {sizes.ffn}; possible: " + ", ".join(map(str, legal)),
        )
    if layout.sequence_parallel and layout.tp == 1:
        yield "sequence_parallel", "splits what tensor-parallel ranks hold alike; tp is 1"
    if layout.sequence_parallel and layout.sharding == "deepspeed":
        yield (
            "sequence_parallel",
            "DeepSpeed splits sequences by cp with ulysses",
        )


def packed_base(run: Training | Inference) -> bool:
    """Whether the frozen weights are packed, so that no rank can hold a part of a layer's rows."""
    base = run.base_weights if isinstance(run, Training) else None
    return base is not None and base.format in PACKED_FORMATS


def _packed(layout: Layout, run: Training | Inference) -> Iterator[Finding]:
    if layout.tp > 1 and packed_base(run):
        assert isinstance(run, Training)
        assert run.base_weights is not None
        yield (
            "tp",
            f"transformers splits no layer of {run.base_weights.format} weights over "
            "tensor-parallel ranks; zero 3 by fsdp1 or fsdp2 shards them",
        )


def _stages(layout: Layout) -> Iterator[Finding]:
    stages = STAGES_OF[layout.sharding]
    if layout.zero not in stages:
        yield (
            "implementation",
            f"{layout.sharding} does not do ZeRO stage {layout.zero}; it does "
            + ", ".join(map(str, stages)),
        )
    if layout.keep_gathered and layout.sharding not in FSDP:
        yield "keep_gathered_after_forward", f"{layout.sharding} gathers no units; fsdp does"
    if layout.shard_size:
        ranks = layout.dp * layout.cp
        if layout.zero != 3:
            yield "shard_size", f"hybrid sharding is of ZeRO stage 3, not {layout.zero}"
        elif ranks and ranks % layout.shard_size:
            yield "shard_size", f"{layout.shard_size} does not divide {ranks} data-parallel ranks"


def _pipeline(architecture: Architecture, layout: Layout, training: Training) -> Iterator[Finding]:
    if layout.pp == 1:
        if layout.virtual_stages > 1:
            yield "virtual_pipeline_stages", "there is no pipeline to interleave; pp is 1"
        return
    layers, pieces = pipeline_layers(architecture), layout.pp * layout.virtual_stages
    if pieces > layers:
        yield "pp", f"{layout.pp} stages of {layout.virtual_stages} chunks exceed {layers} layers"
    elif layout.sharding == "megatron":
        yield from megatron_stages(layers, layout)
    if layout.sharding == "deepspeed":
        yield from _deepspeed_pipeline(layout)
    if layout.sharding == "fsdp1":
        yield "pp", "torch.distributed.pipelining does not compose with fsdp1; use fsdp2"
    if any(run.role == "between" for run in architecture.runs[1:]):
        yield "pp", "a model with an encoder and a decoder is not cut into stages"
    if layout.virtual_stages > 1:
        yield from _interleaving(layout, training.gradient_accumulation_steps)


def _deepspeed_pipeline(layout: Layout) -> Iterator[Finding]:
    """What PipelineEngine does not do (deepspeed/runtime/pipe)."""
    if layout.zero > 1:
        yield "pp", "DeepSpeed's pipeline engine refuses ZeRO stages 2 and 3; use stage 1"
    if layout.pipeline_schedule == "zero-bubble":
        yield "pipeline_schedule", "DeepSpeed's pipeline engine runs 1F1B alone"
    if layout.virtual_stages > 1:
        yield "virtual_pipeline_stages", "DeepSpeed's pipeline engine does not interleave"


def _interleaving(layout: Layout, micro: int) -> Iterator[Finding]:
    if layout.pipeline_schedule == "gpipe":
        yield "pipeline_schedule", "GPipe has no interleaved form; use 1f1b or zero-bubble"
    if micro % layout.pp:
        yield (
            "virtual_pipeline_stages",
            f"interleaving needs micro-batches (gradient_accumulation_steps, {micro}) in multiples"
            f" of the {layout.pp} stages",
        )


def _context(architecture: Architecture, layout: Layout, training: Training) -> Iterator[Finding]:
    if layout.cp == 1:
        return
    if training.attention == "eager":
        yield "cp", "eager attention needs every key on every rank; use sdpa or flash attention"
    if architecture.recurrent:
        yield (
            "cp",
            f"recurrent layers of {architecture.model_type} hand a state from token to token, which"
            " transformers does not pass on to the next rank; use 1",
        )
    pieces = layout.cp if layout.context_method == "ulysses" else 2 * layout.cp
    if training.seq_len % pieces:
        each = "a piece" if pieces == layout.cp else "two pieces"
        yield (
            "cp",
            f"{training.seq_len} tokens do not divide by {pieces}, {each} for each of"
            f" {layout.cp} ranks",
        )
    if layout.sharding == "fsdp1":
        yield "cp", "context parallelism does not compose with fsdp1; use fsdp2"
    if layout.sharding == "deepspeed" and layout.context_method != "ulysses":
        yield "context_parallel_method", "DeepSpeed splits sequences by ulysses alone"
    heads = architecture.sizes.heads // layout.tp
    if layout.context_method == "ulysses" and heads % layout.cp:
        yield "cp", f"ulysses splits heads: {layout.cp} does not divide {heads} heads of a rank"


def _experts(architecture: Architecture, layout: Layout) -> Iterator[Finding]:
    if layout.ep == 1:
        return
    experts = max(run.sizes.experts for run in architecture.runs)
    ranks = layout.dp * layout.cp * layout.tp
    if not experts:
        yield "ep", "the model has no experts"
        return
    if layout.ep > experts or experts % layout.ep:
        yield "ep", f"{layout.ep} does not divide {experts} experts"
    if ranks and ranks % layout.ep:
        yield "ep", f"{layout.ep} does not divide {ranks} data-, context- and tensor-parallel ranks"
    split = layout.megatron.expert_tensor_parallel_size
    if layout.sharding == "megatron" and split and ranks and ranks % (layout.ep * split):
        yield (
            "megatron.expert_tensor_parallel_size",
            f"{split} x ep {layout.ep} does not divide {ranks} data-, context- and"
            " tensor-parallel ranks",
        )
    if layout.sharding == "deepspeed" and layout.zero == 3:
        yield "ep", "DeepSpeed's experts do not run under ZeRO stage 3; use stage 1 or 2"
    if layout.sharding == "fsdp1":
        yield "ep", "expert parallelism does not compose with fsdp1; use fsdp2"


def _offload(layout: Layout, training: Training) -> Iterator[Finding]:
    blocks = training.checkpointing != "none" or layout.sharding == "megatron"
    if layout.offload_activations and not blocks:
        yield "offload_activations", "offloads the inputs of checkpointed blocks; none are"
    if layout.offload == "none":
        return
    target, library = layout.offload, layout.sharding
    if library == "ddp" and target != "optimizer":
        yield "offload", f"{target} is not done beside ddp; use deepspeed or fsdp"
    elif library in FSDP and target != "optimizer-and-parameters":
        yield "offload", "fsdp offloads parameters, gradients and optimizer together"
    elif library == "megatron" and target != "optimizer":
        yield "offload", "Megatron-LM offloads the optimizer alone"
    elif target != "optimizer" and layout.zero != 3:
        yield "offload", f"{target} needs ZeRO stage 3, not {layout.zero}"
    if layout.offload_share < 1 and (
        library in FSDP or (layout.zero != 3 and library != "megatron")
    ):
        yield "offload_share", "only Megatron-LM and DeepSpeed's stage 3 offload a share"


def _megatron(architecture: Architecture, layout: Layout, training: Training) -> Iterator[Finding]:
    """What Megatron Core's layers are not described with."""
    if layout.sharding != "megatron":
        return
    kinds = {run.lowering for run in architecture.runs}
    unknown = sorted(kinds - MEGATRON_SEGMENTS)
    if unknown:
        yield "implementation", f"Megatron-LM's {', '.join(unknown)} layers are not described"
    if architecture.recurrent:
        yield (
            "implementation",
            "Megatron-LM's own recurrent layers are not described; use ddp, deepspeed or fsdp",
        )
    stacks = len({run.sizes.stack for run in architecture.runs}) > 1
    if stacks and layout.sequence_parallel:
        yield "sequence_parallel", "is not described for an encoder and a decoder in Megatron-LM"
    if training.adapter is not None and training.adapter.method not in ("lora", "rslora"):
        yield (
            "implementation",
            f"{training.adapter.method} is not described in Megatron-LM's layers",
        )
    if training.precision not in MEGATRON_PRECISIONS:
        yield "implementation", f"Megatron-LM does not train in {training.precision} here"
    yield from megatron_settings(architecture, layout, training)
    if architecture.head.kind not in ("causal-lm", "masked-lm", "seq2seq-lm"):
        yield "implementation", f"Megatron-LM has no {architecture.head.kind} head here"


def _inference(layout: Layout) -> Iterator[Finding]:
    for name in ("pp", "cp", "ep"):
        if getattr(layout, name) > 1:
            yield name, "transformers generates with tensor parallelism alone; use 1"
    if layout.zero:
        yield "zero", "must be 0: nothing is trained"
    if layout.sequence_parallel:
        yield "sequence_parallel", "is for training"
    if layout.offload != "none" or layout.offload_activations:
        yield "offload", "is for training"
