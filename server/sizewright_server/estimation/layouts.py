"""Which parallel layouts a workload may take on a number of GPUs."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from sizewright_server.estimation.architecture import Architecture
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.workload import Inference, Layout, Training

#: What each library can shard, by ZeRO stage.
STAGES_OF = {
    "ddp": (0,),
    "deepspeed": (1, 2, 3),
    "fsdp1": (3,),
    "fsdp2": (3,),
    "megatron": (0, 1),
}


def legal_tensor_parallel(architecture: Architecture) -> tuple[int, ...]:
    """Tensor-parallel sizes the model allows: they divide the heads and the feed-forward width.

    Key/value heads must divide, or be divided by, the size (they are replicated then).
    """
    sizes = architecture.sizes
    return tuple(
        t
        for t in range(1, sizes.heads + 1)
        if sizes.heads % t == 0
        and sizes.ffn % t == 0
        and (sizes.kv_heads % t == 0 or t % sizes.kv_heads == 0)
    )


def check_layout(architecture: Architecture, layout: Layout, field: str) -> None:
    """Raises UnsupportedWorkload when an explicit layout contradicts the model or itself."""
    sizes, wrong = architecture.sizes, []
    if layout.tp not in legal_tensor_parallel(architecture):
        wrong.append(
            Violation(
                f"{field}.tp",
                f"{layout.tp} does not divide {sizes.heads} heads, {sizes.kv_heads} key/value heads"
                f" and feed-forward width {sizes.ffn}; possible: "
                + ", ".join(map(str, legal_tensor_parallel(architecture))),
            )
        )
    if layout.zero not in STAGES_OF[layout.sharding]:
        stages = ", ".join(map(str, STAGES_OF[layout.sharding]))
        wrong.append(
            Violation(
                f"{field}.implementation",
                f"{layout.sharding} does not do ZeRO stage {layout.zero}; it does {stages}",
            )
        )
    wrong += _not_built(layout, field)
    if wrong:
        raise UnsupportedWorkload(*wrong)


def _not_built(layout: Layout, field: str) -> list[Violation]:
    asked = {
        "sequence_parallel": layout.sequence_parallel,
        "pp": layout.pp > 1,
        "cp": layout.cp > 1,
        "ep": layout.ep > 1,
        "offload": layout.offload != "none",
        "offload_activations": layout.offload_activations,
        "implementation": layout.sharding in ("fsdp1", "megatron"),
    }
    return [Violation(f"{field}.{k}", "is not built yet") for k, wanted in asked.items() if wanted]


@lru_cache(maxsize=4096)
def possible_layouts(
    legal_tp: tuple[int, ...], *, training: bool, gpus: int, gpus_per_node: int
) -> tuple[Layout, ...]:
    """Every layout over `gpus`: tensor parallelism within a node, the rest data parallel.

    Training tries each ZeRO stage over the data-parallel ranks (1 and 2 by DeepSpeed, 3 by FSDP2);
    inference tries replicas.
    """
    found = []
    for tp in legal_tp:
        if tp > gpus_per_node or gpus % tp:
            continue
        dp = gpus // tp
        found.append(Layout(dp=dp, tp=tp))
        if training and dp > 1:
            found += [
                Layout(dp=dp, zero=1, tp=tp, sharding="deepspeed"),
                Layout(dp=dp, zero=2, tp=tp, sharding="deepspeed"),
                Layout(dp=dp, zero=3, tp=tp, sharding="fsdp2"),
            ]
    return tuple(found)


def layouts_of_run(
    run: Training | Inference, legal_tp: tuple[int, ...], gpus: int, gpus_per_node: int
) -> tuple[Layout, ...]:
    """The run's own layout where it is explicit and takes just these GPUs; else every one.

    An explicit layout with dp 0 fills the GPUs.
    """
    explicit = run.layout
    if explicit is None:
        training = isinstance(run, Training)
        return possible_layouts(legal_tp, training=training, gpus=gpus, gpus_per_node=gpus_per_node)
    if explicit.dp == 0 and gpus % explicit.tp == 0:
        explicit = replace(explicit, dp=gpus // explicit.tp)
    if explicit.gpus != gpus or explicit.tp > gpus_per_node:
        return ()
    return (explicit,)
