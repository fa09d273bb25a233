"""Runs a command and samples its tree until it ends."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from sizewright_client.observe.gpus import Gpus, load_nvml
from sizewright_client.observe.record import MOST_SAMPLES, Observation, growth_of, thinned
from sizewright_client.observe.sampling import ProcessTree, Sample, largest_child_bytes

#: Looking may take at most this share of the time: maps of large processes take milliseconds.
LOOKING_SHARE = 0.1


class CommandNotRunError(Exception):
    """A command that could not be started, with the system's words."""


def observe(
    command: Sequence[str],
    *,
    interval_seconds: float,
    output_to_stderr: bool = False,
    nvml: Any | None = None,
) -> Observation:
    """Runs `command` to its end and tells what its processes took.

    Its standard streams are this process's own; with `output_to_stderr` its output goes to
    standard error. An interrupt goes to the command, as it shares the terminal; what was seen
    until its end is told all the same. `nvml` stands in for NVML's bindings. Raises
    CommandNotRunError.
    """
    gpus = Gpus(nvml or load_nvml())
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            list(command), stdout=sys.stderr.fileno() if output_to_stderr else None
        )
    except OSError as error:
        raise CommandNotRunError(f"{command[0]}: {error.strerror}") from error
    tree = ProcessTree(process.pid, gpus)
    samples = _watch(process, tree, started, interval_seconds)
    status = _wait(process)
    return _observation(command, status, time.monotonic() - started, tree.reading, samples)


def _watch(
    process: subprocess.Popen[bytes], tree: ProcessTree, started: float, interval: float
) -> list[Sample]:
    samples: list[Sample] = []
    while process.poll() is None:
        looked = time.monotonic()
        sample = tree.sample(looked - started)
        if sample is not None:
            samples.append(sample)
        if len(samples) >= MOST_SAMPLES:
            samples = thinned(samples)
            interval *= 2
        took = time.monotonic() - looked
        try:
            process.wait(max(interval - took, took / LOOKING_SHARE))
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:
            # The command got the interrupt too, and may want to end in order.
            continue
    return samples


def _wait(process: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def _observation(
    command: Sequence[str],
    status: int,
    duration: float,
    reading: str,
    samples: list[Sample],
) -> Observation:
    """Sums up. The kernel's own mark counts where there was never more than one process."""
    largest = largest_child_bytes()
    top = max(samples, key=lambda s: s.memory_bytes, default=Sample(0.0, 0, 1, None))
    alone = all(sample.process_count <= 1 for sample in samples)
    peak = max(top.memory_bytes, largest) if alone else top.memory_bytes
    gpus = [sample.gpu_bytes for sample in samples if sample.gpu_bytes is not None]
    return Observation(
        command=tuple(command),
        exit_status=status,
        duration_seconds=duration,
        reading="rss high-water mark" if alone and peak == largest else f"{reading} of the tree",
        peak_bytes=peak,
        peak_seconds=top.seconds,
        peak_process_count=top.process_count,
        largest_process_bytes=largest,
        gpu_peak_bytes=max(gpus, default=None),
        growth=growth_of(samples),
        samples=tuple(samples),
    )
