"""Deep models are replayed by some of their blocks: of each kind, however kinds alternate."""

from __future__ import annotations

import pytest

from sizewright_server.estimation import replay_counts
from sizewright_server.estimation.estimator import PreparedWorkload, prepare
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.replay import expansion_of
from sizewright_server.estimation.replay_events import SHARED, Handle
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.techniques import Adapter
from sizewright_server.estimation.workload import (
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

#: Windows, delta nets and state-space layers between attention, and experts in some layers.
ALTERNATING = [
    "google/gemma-3-27b-it",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "nvidia/Nemotron-H-56B-Base-8K",
    "ai21labs/AI21-Jamba-1.5-Large",
]
HOPPER = device_overhead("nvidia", "9.0")


def deep(preset: str, adapter: Adapter | None = None) -> PreparedWorkload:
    optimizer = Optimizer("adamw", "fused")
    run = Training("bf16", optimizer, 1, 4096, checkpointing="full", adapter=adapter)
    return prepare(Workload(ModelSource(find_preset(preset).config), run))


@pytest.mark.parametrize("preset", ALTERNATING)
def test_some_blocks_of_each_kind_say_what_all_of_them_say(
    preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reserved_bytes() -> int:
        made = deep(preset, Adapter("lora", rank=16, targets=frozenset({"q", "v"})))
        return made.estimate(Layout(), 1, HOPPER, replay=True).pool("gpu").peak.best_bytes

    some = reserved_bytes()
    monkeypatch.setattr(replay_counts, "MOST_EVENTS", 10**9)

    assert abs(some / reserved_bytes() - 1) < 0.01


def left_by_blocks(preset: str) -> set[int]:
    """Bytes of what no block releases; parameters and states stay by themselves."""
    held: dict[Handle, int] = {}
    for handle, size in expansion_of(deep(preset).group([Layout()])).requests():
        held.pop(handle, None)
        if size > 0:
            held[handle] = size
    return {size for handle, size in held.items() if handle[0] >= 0 or handle[0] == SHARED}


@pytest.mark.parametrize("preset", ALTERNATING)
def test_what_blocks_request_they_release_whichever_are_left_out(
    preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = left_by_blocks(preset)
    monkeypatch.setattr(replay_counts, "MOST_EVENTS", 10**9)

    assert some == left_by_blocks(preset)


@pytest.mark.parametrize("preset", ALTERNATING)
def test_every_kind_of_block_is_replayed(preset: str) -> None:
    group = deep(preset).group([Layout()])
    whole = [count if isinstance(count, int) else int(count[0]) for count in group.counts]
    left = replay_counts.replayed_counts(group, whole)
    kinds = {id(segment.program): 0 for segment in group.segments}
    for segment, count in zip(group.segments, left, strict=True):
        kinds[id(segment.program)] += count

    assert min(kinds.values()) >= 1
    assert sum(left) < sum(whole)
