"""Inference as a schedule: the prefill of a prompt and the last step of the decode after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Literal

import numpy as np

from sizewright_server.estimation.architecture import Architecture
from sizewright_server.estimation.dims import Dims
from sizewright_server.estimation.inputs import input_bytes
from sizewright_server.estimation.lowering import Segment, lower
from sizewright_server.estimation.modeling import in_operators
from sizewright_server.estimation.ops import FP32, INT64, Types
from sizewright_server.estimation.profile import (
    Column,
    buffer_bytes,
    elements,
    round_up,
    storage_bytes,
)
from sizewright_server.estimation.recurrence_checks import path_not_stated
from sizewright_server.estimation.segments import unfilled
from sizewright_server.estimation.states import HALF, tensor_bytes
from sizewright_server.estimation.tensor_tables import Tensors
from sizewright_server.estimation.timeline import Stage, course_of, run_timeline
from sizewright_server.estimation.transformer import Mode
from sizewright_server.estimation.workload import Inference, Layout

WIDTHS = {"fp32": FP32, "bf16": HALF, "fp16": HALF}
#: A static cache is made in the prefill, layer by layer, and written to afterwards.
PREFILL_CACHES: dict[str, Literal["none", "dynamic", "new"]] = {
    "none": "none",
    "dynamic": "dynamic",
    "static": "new",
}
DECODE_CACHES: dict[str, Literal["none", "dynamic", "static"]] = {
    "none": "none",
    "dynamic": "dynamic",
    "static": "static",
}


class InferenceGroup:
    """Layouts of one inference; data-parallel ranks are whole replicas."""

    #: The column that is explained.
    shown = 0

    def __init__(
        self, architecture: Architecture, inference: Inference, layouts: Sequence[Layout]
    ) -> None:
        self.architecture = architecture = in_operators(architecture, inference.recurrence)
        self.inference = inference
        self.layouts = tuple(layouts)
        self.tp = np.array([layout.tp for layout in layouts], dtype=np.int64)
        width = WIDTHS[inference.weight_dtype]
        self.mode = Mode(
            types=Types(width, width, autocast=False, float16=inference.weight_dtype == "fp16"),
            training=False,
            attention=inference.attention,
            padded=inference.padded_batches,
            cache=PREFILL_CACHES[inference.cache],
            one_sample=inference.batch == 1 and architecture.recurrent,
        )
        longest = inference.input_tokens + inference.new_tokens
        self.segments = lower(architecture, self.mode, inference.input_tokens)
        # Decode steps carry no padding mask: generate() slices it to the last query.
        stepping = replace(
            self.mode, padded=False, one_query=True, cache=DECODE_CACHES[inference.cache]
        )
        self.decode_segments = lower(architecture, stepping, longest)
        self.counts = [segment.count for segment in self.segments]
        self.dims_of = self.dims(1, 1, 1)

    def dims(self, tokens: int, cached: int, kept: int) -> Dims:
        """Dimensions of a pass over `tokens` new tokens with `cached` in the cache after it."""
        longest = self.inference.input_tokens + self.inference.new_tokens
        batch = {"B": self.inference.batch, "S": tokens, "C": cached, "KEPT": kept, "M": longest}
        target = self.inference.target_tokens
        batch |= {"TARGET": target, "TARGET_CACHED": target}
        return Dims(self.tp, batch)

    def weights(self) -> Column:
        """Weights and buffers of one rank, tied tensors once."""
        width = self.mode.types.weight
        total = np.zeros_like(self.tp)
        for segment in self.segments:
            dims = self.dims_of.of(segment.sizes)
            one = tensor_bytes(segment, dims, width) + buffer_bytes(segment.program, dims)
            total = total + segment.count * one
        head = self.architecture.head
        if head.shares_table:
            dims = self.dims_of.of(self.segments[0].sizes)
            total = total - round_up(elements(("V", "E"), dims) * width)
        return total

    def unfilled(self) -> Column:
        """Bytes at most that the allocator's segments of the weights leave empty."""
        tensors = Tensors(self.segments, self.dims_of)
        each = tensors.sums(unfilled(tensors.table.elements * self.mode.types.weight))
        total: Column = (np.array(self.counts)[:, None] * each).sum(axis=0)
        return total

    def cache(self, tokens: int) -> Column:
        """Key/value cache of all layers for `tokens` per sequence."""
        total: Column = np.zeros_like(self.tp)
        for segment in self.segments:
            total = total + segment.count * self._cache_of(segment, tokens)
        return total

    def _cache_of(self, segment: Segment, tokens: int) -> Column:
        """What one instance of a segment keeps for later steps: its outputs but the first."""
        total: Column = np.zeros_like(self.tp)
        if segment.repeats:
            dims = self.dims(tokens, tokens, 1).of(segment.sizes)
            for shape, width in segment.program.kept:
                total = total + round_up(elements(shape, dims) * width)
        return total

    def inputs(self) -> Column:
        """Token ids of the prompts."""
        tokens = self.inference.input_tokens
        return input_bytes(
            self.architecture,
            self.dims(tokens, tokens, 1).of(self.architecture.sizes),
            width=self.mode.types.weight,
            labels=False,
            padded=self.inference.padded_batches,
        )

    @cached_property
    def resident(self) -> Column:
        """Bytes there from load to end: weights and prompts."""
        return self.weights() + self.inputs()

    def doubt(self, phase: str) -> tuple[Column, Column]:
        """Bytes a phase may hold less, and more, than the schedule says.

        More: generate() makes fp32 copies of the last logits and of their softmax, and a decode
        step's cache is concatenated layer by layer.
        """
        zero = np.zeros_like(self.tp)
        if self.inference.new_tokens < 1:
            return zero, zero
        dims = self.dims_of.of(self.architecture.sizes)
        return zero, 4 * round_up(elements(("B", "V"), dims) * FP32)

    @cached_property
    def peaks_without_kernels(self) -> dict[str, Column]:
        """Each phase's peak, were recurrent layers run in torch's operators; empty where the run
        says which they are run in."""
        if not path_not_stated(self.architecture, self.inference):
            return {}
        without = replace(self.inference, recurrence="eager")
        other = InferenceGroup(self.architecture, without, self.layouts)
        peaks = run_timeline(other.resident, course_of(other.all_stages))
        return {peak.phase: peak.peak_bytes for peak in peaks}

    def resident_numbers(self, parameters: int, trained: int) -> list[tuple[str, int, str]]:
        """Name, bytes and numbers of what is there throughout, for the first layout."""
        width, tp = self.mode.types.weight, int(self.tp[0])
        return [
            ("weights", int(self.weights()[0]), f"{parameters:,} x {width} B over {tp}"),
            (
                "inputs",
                int(self.inputs()[0]),
                f"{self.inference.batch} x {self.inference.input_tokens} x {INT64} B",
            ),
        ]

    @cached_property
    def all_stages(self) -> tuple[Stage, ...]:
        """The prefill, and the decode step with the longest cache."""
        prompt, new = self.inference.input_tokens, self.inference.new_tokens
        kept = self.inference.logits_to_keep or prompt
        # A static cache hands back all its rows, those that are empty too.
        seen = prompt + new if self.inference.cache == "static" else prompt
        prefill = self._pass("prefill", self.segments, self.dims(prompt, seen, kept), 0)
        if new < 1:
            return tuple(prefill)
        last = prompt + new
        # The cache has grown to its last token but one when the last step begins.
        grown = self.cache(last - 1) - self.cache(prompt)
        growth = np.zeros_like(self.tp) if self.inference.cache != "dynamic" else grown
        prefill[-1] = replace(prefill[-1], after_bytes=growth - self._logits(prefill[-1]))
        decode = self._pass("decode", self.decode_segments, self.dims(1, last, 1), last)
        return (*prefill, *decode)

    def _pass(
        self, phase: str, segments: tuple[Segment, ...], dims_of: Dims, cached: int
    ) -> list[Stage]:
        """One forward pass. In a decode step each layer's old cache dies when it is copied."""
        nothing = np.zeros_like(self.tp)
        stages = []
        for segment in segments:
            dims = dims_of.of(segment.sizes)
            old = nothing
            if cached and self.inference.cache == "dynamic":
                old = self._cache_of(segment, cached - 1)
            stages.append(
                Stage(
                    phase,
                    segment.name,
                    segment.program.forward_without_grad,
                    storage_bytes(segment.program, dims),
                    np.full_like(self.tp, segment.count),
                    nothing,
                    -old,
                )
            )
        return stages

    def _logits(self, head: Stage) -> Column:
        total: Column = np.zeros_like(self.tp)
        for storage in self.segments[-1].program.output_storages:
            total = total + head.sizes[storage]
        return total
