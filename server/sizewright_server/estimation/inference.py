"""Inference as a schedule: the prefill of a prompt and the last step of the decode after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from sizewright_server.estimation.architecture import Architecture
from sizewright_server.estimation.lowering import Dims, Segment, lower
from sizewright_server.estimation.ops import FP32, INT64, Types
from sizewright_server.estimation.profile import Column, elements, round_up, storage_bytes
from sizewright_server.estimation.states import HALF, tensor_bytes
from sizewright_server.estimation.timeline import Stage
from sizewright_server.estimation.transformer import Mode, residual_itemsize
from sizewright_server.estimation.workload import Inference, Layout

WIDTHS = {"fp32": FP32, "bf16": HALF, "fp16": HALF}


class InferenceGroup:
    """Layouts of one inference; data-parallel ranks are whole replicas."""

    def __init__(
        self, architecture: Architecture, inference: Inference, layouts: Sequence[Layout]
    ) -> None:
        self.architecture = architecture
        self.inference = inference
        self.tp = np.array([layout.tp for layout in layouts], dtype=np.int64)
        width = WIDTHS[inference.weight_dtype]
        self.mode = Mode(
            types=Types(width, width, autocast=False),
            training=False,
            attention=inference.attention,
            padded=inference.padded_batches,
            cache=inference.cache == "dynamic",
            tensor_parallel=bool((self.tp > 1).any()),
        )
        self.segments = lower(architecture, self.mode)
        # Decode steps carry no padding mask: generate() slices it to the last query.
        self.decode_segments = lower(architecture, replace(self.mode, padded=False))
        self.counts = [segment.count for segment in self.segments]
        self.dims_of = self.dims(1, 1, 1)

    def dims(self, tokens: int, cached: int, kept: int) -> Dims:
        """Dimensions of a pass over `tokens` new tokens with `cached` in the cache after it."""
        batch = {"B": self.inference.batch, "S": tokens, "C": cached, "KEPT": kept}
        return Dims(self.tp, batch)

    def weights(self) -> Column:
        """Weights of one rank, tied tensors once."""
        width = self.mode.types.weight
        total = np.zeros_like(self.tp)
        for segment in self.segments:
            dims = self.dims_of.of(segment.sizes)
            total = total + segment.count * tensor_bytes(segment, dims, width)
        head = self.architecture.head
        if head.tied and head.kind in ("causal-lm", "masked-lm"):
            dims = self.dims_of.of(self.segments[0].sizes)
            total = total - round_up(elements(("V", "E"), dims) * width)
        return total

    def cache(self, tokens: int) -> Column:
        """Key/value cache of all layers for `tokens` per sequence."""
        total: Column = np.zeros_like(self.tp)
        for segment in self.segments:
            total = total + segment.count * self._cache_of(segment, tokens)
        return total

    def _cache_of(self, segment: Segment, tokens: int) -> Column:
        """Key/value cache of one instance of a segment."""
        if not segment.repeats:
            return np.zeros_like(self.tp)
        dims = self.dims(1, tokens, 1).of(segment.sizes)
        return 2 * round_up(elements(("B", "C", "K"), dims) * self._kv_width())

    def inputs(self) -> Column:
        """Token ids of the prompts."""
        tokens = self.inference.input_tokens
        return round_up(np.full_like(self.tp, self.inference.batch * tokens * INT64))

    @cached_property
    def resident(self) -> Column:
        """Bytes there from load to end: weights, prompts, and a static cache."""
        total = self.weights() + self.inputs()
        if self.inference.cache == "static":
            total = total + self.cache(self.inference.input_tokens + self.inference.new_tokens)
        return total

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

    def resident_numbers(self, parameters: int) -> list[tuple[str, int, str]]:
        """Name, bytes and numbers of what is there throughout, for the first layout."""
        width, tp = self.mode.types.weight, int(self.tp[0])
        longest = self.inference.input_tokens + self.inference.new_tokens
        static = self.cache(longest) if self.inference.cache == "static" else np.zeros_like(self.tp)
        sizes = self.architecture.sizes
        return [
            ("weights", int(self.weights()[0]), f"{parameters:,} x {width} B over {tp}"),
            (
                "static-cache",
                int(static[0]),
                f"2 x {sizes.layers} x {self.inference.batch} x {longest} x {sizes.kv_heads} x "
                f"{sizes.head_dim} x {self._kv_width()} B over {tp}",
            ),
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
        prefill = self._pass("prefill", self.segments, self.dims(prompt, prompt, kept), 0)
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
        """One forward pass; the embedding's output is held by the body's frame until it returns."""
        width = residual_itemsize(self.architecture.style, self.mode)
        stages = []
        for segment in segments:
            nothing = np.zeros_like(self.tp)
            dims = dims_of.of(segment.sizes)
            held = round_up(elements(("B", "S", "H"), dims) * width)
            old = nothing
            if cached and self.inference.cache == "dynamic":
                old = self._cache_of(segment, cached - 1)
            stages.append(
                Stage(
                    phase,
                    segment.name,
                    segment.program.forward_without_grad,
                    storage_bytes(segment.program, dims, len(self.tp)),
                    np.full_like(self.tp, segment.count),
                    held if segment.repeats else nothing,
                    -old,
                    "hidden-states",
                )
            )
        return stages

    def _logits(self, head: Stage) -> Column:
        total: Column = np.zeros_like(self.tp)
        for storage in self.segments[-1].program.output_storages:
            total = total + head.sizes[storage]
        return total

    def _kv_width(self) -> int:
        return WIDTHS[self.inference.kv_dtype]
