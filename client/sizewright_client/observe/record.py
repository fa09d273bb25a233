"""What was observed: the samples, the peak, and whether memory grew to the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sizewright_client.observe.sampling import Sample

#: A trend needs this many samples and seconds; below them a start looks like a leak.
TREND_SAMPLES = 10
TREND_SECONDS = 5.0
#: Growth is called steady when a line explains this share of it ...
STEADY_FIT = 0.8
#: ... and it makes up this share of the peak.
STEADY_SHARE = 0.02
#: Most points kept: then every second one goes, its peak kept by its neighbour.
MOST_SAMPLES = 4096


@dataclass(frozen=True, slots=True)
class Growth:
    """The trend of the run's second half, by least squares."""

    bytes_per_minute: int
    fit: float
    steady: bool


@dataclass(frozen=True, slots=True)
class Observation:
    """A finished run. Sizes are bytes of the whole tree, as `reading` says."""

    command: tuple[str, ...]
    exit_status: int
    duration_seconds: float
    reading: str
    peak_bytes: int
    peak_seconds: float
    peak_process_count: int
    largest_process_bytes: int
    gpu_peak_bytes: int | None
    growth: Growth | None
    samples: tuple[Sample, ...]


def growth_of(samples: Sequence[Sample]) -> Growth | None:
    """The trend over the second half of a run; None for a run too short to have one."""
    if len(samples) < 2 * TREND_SAMPLES:
        return None
    middle = samples[0].seconds + (samples[-1].seconds - samples[0].seconds) / 2
    late = [sample for sample in samples if sample.seconds >= middle]
    span = late[-1].seconds - late[0].seconds if late else 0.0
    if len(late) < TREND_SAMPLES or span < TREND_SECONDS:
        return None
    slope, fit = _line([s.seconds for s in late], [float(s.memory_bytes) for s in late])
    peak = max(sample.memory_bytes for sample in samples)
    steady = fit >= STEADY_FIT and slope * span >= STEADY_SHARE * peak
    return Growth(int(slope * 60), fit, steady)


def _line(at: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Slope of the least-squares line, and the share of the variance it explains."""
    count = len(at)
    mean_at, mean = sum(at) / count, sum(values) / count
    spread = sum((x - mean_at) ** 2 for x in at)
    varies = sum((y - mean) ** 2 for y in values)
    together = sum((x - mean_at) * (y - mean) for x, y in zip(at, values, strict=True))
    if not spread or not varies:
        return 0.0, 0.0
    return together / spread, together * together / (spread * varies)


def thinned(samples: list[Sample]) -> list[Sample]:
    """Half of the samples: of each two neighbours the larger."""
    kept = [max(pair, key=lambda s: s.memory_bytes) for pair in list(pairwise(samples))[::2]]
    return kept if len(samples) % 2 == 0 else [*kept, samples[-1]]
