"""An observed peak beside an estimate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from google.protobuf.json_format import Parse, ParseError

from sizewright.v1 import estimate_pb2, sizing_service_pb2
from sizewright_client.observe.record import Observation


class NoEstimateError(ValueError):
    """A text that holds no estimate of this pool."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One pool: what was seen, what was estimated. `error` is (best - seen) / seen."""

    pool: Literal["host", "gpu"]
    observed_bytes: int
    low_bytes: int
    best_bytes: int
    high_bytes: int

    @property
    def error(self) -> float:
        """How far the best estimate lies from what was seen, as a share of it."""
        return self.best_bytes / self.observed_bytes - 1 if self.observed_bytes else 0.0

    @property
    def verdict(self) -> Literal["below", "within", "above"]:
        """Where the observed peak lies with respect to the interval."""
        if self.observed_bytes < self.low_bytes:
            return "below"
        return "above" if self.observed_bytes > self.high_bytes else "within"


def estimate_from_json(text: str) -> estimate_pb2.MemoryEstimate:
    """The estimate of an answer as `sizewright estimate -o json` writes it.

    Raises NoEstimateError.
    """
    try:
        answer = Parse(text, sizing_service_pb2.EstimateResponse())
    except ParseError as error:
        raise NoEstimateError(f"is no answer of `sizewright estimate -o json`: {error}") from error
    if not answer.estimate.pools:
        raise NoEstimateError("holds no estimate")
    return answer.estimate


def compare(seen: Observation, estimate: estimate_pb2.MemoryEstimate) -> tuple[Comparison, ...]:
    """Each pool of the estimate that was also seen."""
    made = []
    for pool in estimate.pools:
        on_gpu = pool.pool == estimate_pb2.POOL_GPU
        observed = seen.gpu_peak_bytes if on_gpu else seen.peak_bytes
        if observed is None:
            continue
        peak = pool.peak
        made.append(
            Comparison(
                "gpu" if on_gpu else "host",
                observed,
                peak.low_bytes,
                peak.best_bytes,
                peak.high_bytes,
            )
        )
    return tuple(made)
