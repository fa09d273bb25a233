"""When growth is called steady, and what long runs keep of their samples."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from sizewright_client.observe.record import growth_of, thinned
from sizewright_client.observe.sampling import Sample

MIB = 2**20


def samples(memory: list[float], each_seconds: float = 0.5) -> list[Sample]:
    return [Sample(i * each_seconds, int(size), 1, None) for i, size in enumerate(memory)]


def test_a_leak_is_told_per_minute() -> None:
    leaking = samples([100 * MIB + i * MIB for i in range(60)])

    growth = growth_of(leaking)

    assert growth is not None
    assert growth.steady
    assert growth.bytes_per_minute == 120 * MIB


def test_a_level_run_does_not_grow() -> None:
    growth = growth_of(samples([100 * MIB + (i % 2) * MIB for i in range(60)]))

    assert growth is not None
    assert not growth.steady


def test_a_run_that_climbed_at_its_start_alone_does_not_grow() -> None:
    climbing = [min(i, 25) * 10 * MIB for i in range(60)]

    growth = growth_of(samples([float(size) for size in climbing]))

    assert growth is not None
    assert growth.bytes_per_minute == 0
    assert not growth.steady


def test_epochs_that_come_and_go_are_no_leak() -> None:
    waves = [500 * MIB + 200 * MIB * math.sin(i / 3) for i in range(120)]

    growth = growth_of(samples(waves))

    assert growth is not None
    assert not growth.steady


def test_a_few_seconds_are_no_trend() -> None:
    assert growth_of(samples([float(i) for i in range(30)], each_seconds=0.1)) is None


@given(st.lists(st.integers(0, 2**50), min_size=2, max_size=200))
def test_thinning_never_loses_the_peak(sizes: list[int]) -> None:
    kept = thinned(samples([float(size) for size in sizes]))

    assert max(s.memory_bytes for s in kept) == max(sizes)
    assert len(kept) <= len(sizes) // 2 + 1
