"""Memory estimates as messages."""

from __future__ import annotations

from collections.abc import Sequence

from sizewright.v1 import estimate_pb2 as pb
from sizewright_server.estimation.memory import (
    ByteRange,
    MemoryEstimate,
    Notice,
    Part,
    Phase,
    PoolEstimate,
)
from sizewright_server.estimation.serving.view import CountRange, ServingView
from sizewright_server.estimation.steps import steps_of
from sizewright_server.estimation.workload import Layout

POOLS = {"gpu": pb.POOL_GPU, "host": pb.POOL_HOST}
CONFIDENCE = {
    "high": pb.CONFIDENCE_HIGH,
    "medium": pb.CONFIDENCE_MEDIUM,
    "low": pb.CONFIDENCE_LOW,
}


def estimate_message(value: MemoryEstimate) -> pb.MemoryEstimate:
    """The whole tree."""
    return pb.MemoryEstimate(
        pools=[_pool(pool) for pool in value.pools],
        layout=layout_message(value.layout),
        ranks_per_node=value.ranks_per_node,
        parameter_count=value.parameter_count,
        trainable_parameter_count=value.trainable_parameter_count,
        architecture=value.architecture,
        warnings=warning_messages(value.notices),
        serving=None if value.serving is None else _serving(value.serving),
    )


def layout_message(value: Layout) -> pb.Layout:
    """A layout, every size at least 1."""
    return pb.Layout(
        gpus=value.gpus,
        dp=value.dp,
        zero=value.zero,
        tp=value.tp,
        pp=value.pp,
        cp=value.cp,
        ep=value.ep,
        implementation=value.sharding,
        sequence_parallel=value.sequence_parallel,
        keep_gathered_after_forward=value.keep_gathered,
        virtual_pipeline_stages=value.virtual_stages,
        shard_size=value.shard_ranks,
        offload=value.offload,
    )


def range_message(value: ByteRange) -> pb.ByteRange:
    """Low, best and high."""
    return pb.ByteRange(
        low_bytes=value.low_bytes, best_bytes=value.best_bytes, high_bytes=value.high_bytes
    )


def warning_messages(notices: Sequence[Notice]) -> list[pb.Warning]:
    """Notices as warnings."""
    return [pb.Warning(code=notice.code, message=notice.message) for notice in notices]


def _serving(value: ServingView) -> pb.ServingView:
    return pb.ServingView(
        engine=value.engine,
        engine_version=value.engine_version,
        breakdown=[_part(part) for part in value.breakdown],
        bytes_per_token=value.bytes_per_token,
        block_tokens=value.block_tokens,
        block_bytes=value.block_bytes,
        needed_cache=range_message(value.needed_cache),
        least_gpu=range_message(value.least_gpu),
        engine_use=None if value.engine_use is None else range_message(value.engine_use),
        kv_tokens=_count(value.kv_tokens),
        kv_blocks=_count(value.kv_blocks),
        concurrent_sequences=_count(value.sequences),
        longest_sequence_tokens=_count(value.longest_sequence),
    )


def _count(value: CountRange | None) -> pb.CountRange | None:
    return None if value is None else pb.CountRange(low=value.low, best=value.best, high=value.high)


def _pool(value: PoolEstimate) -> pb.PoolEstimate:
    readings = None
    if value.gpu is not None:
        readings = pb.GpuReadings(
            allocated=range_message(value.gpu.allocated),
            reserved=range_message(value.gpu.reserved),
            device=range_message(value.gpu.device),
        )
    return pb.PoolEstimate(
        pool=POOLS[value.pool],
        scope=value.scope,
        peak_reason=value.peak_reason,
        phases=[_phase(phase) for phase in value.phases],
        peak_phase=value.peak_phase,
        peak=range_message(value.peak),
        gpu=readings,
        stages=[
            pb.StageReadings(
                stage=stage.stage,
                allocated=range_message(stage.allocated),
                reserved=range_message(stage.reserved),
            )
            for stage in value.stages
        ],
        steps=[
            pb.Step(
                name=step.name,
                size=range_message(step.size),
                question=step.question,
                parts=step.parts,
            )
            for step in (steps_of(value) if value.pool == "host" else ())
        ],
    )


def _phase(value: Phase) -> pb.Phase:
    return pb.Phase(
        name=value.name,
        total=range_message(value.total),
        parts=[_part(part) for part in value.parts],
    )


def _part(value: Part) -> pb.Part:
    return pb.Part(
        name=value.name,
        size=range_message(value.size),
        formula=value.formula,
        numbers=value.numbers,
        source=value.source,
        confidence=CONFIDENCE[value.confidence],
        parts=[_part(part) for part in value.parts],
    )
