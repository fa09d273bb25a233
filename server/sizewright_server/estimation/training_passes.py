"""The forward and backward passes of a step as stages."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from sizewright_server.estimation.exchanges import context_bytes
from sizewright_server.estimation.lowering import Segment
from sizewright_server.estimation.modeling import training_loop
from sizewright_server.estimation.profile import (
    EMPTY_PASS,
    Column,
    Pass,
    elements,
    round_up,
)
from sizewright_server.estimation.timeline import Stage
from sizewright_server.estimation.training_setup import TrainingSetup
from sizewright_server.estimation.transformer import residual_itemsize
from sizewright_server.estimation.walks import Walk, until_made, walk, walk_all


class TrainingPasses(TrainingSetup):
    """A group with its passes: what each stage runs, holds and leaves."""

    @cached_property
    def all_stages(self) -> tuple[Stage, ...]:
        """The stages of forward, loss and backward."""
        return (*self.forward_stages, *self._backward())

    @cached_property
    def walks(self) -> Walk:
        """The walks of the passes of `all_stages`: a row each, the forward passes first."""
        count = len(self.segments)
        passes = [self._forward_pass(segment) for segment in self.segments]
        passes += [self._backward_pass(segment) for segment in reversed(self.segments)]
        over = [*range(count), *reversed(range(count)), 0]
        return walk_all([*passes, EMPTY_PASS], over, [self._sizes(s) for s in self.segments])

    @cached_property
    def forward_stages(self) -> list[Stage]:
        """Blocks one after the other; the working set says what is gathered for them."""
        return [
            Stage(
                "loss" if segment.role == "head" else "forward",
                segment.name,
                self._forward_pass(segment),
                self._sizes(segment),
                self.counts[index],
                self._held_forward(index),
                self._after_forward(index),
                after_part=self._after_part(segment),
            )
            for index, segment in enumerate(self.segments)
        ]

    def _after_forward(self, index: int) -> Column:
        """What stays of a segment beyond its tape; autocast's cache is emptied at the end."""
        segment = self.segments[index]
        left = self.working.after_forward(index) - self._fetched(segment)
        return left - self._cached_casts if segment.role == "head" else left

    @cached_property
    def _cached_casts(self) -> Column:
        """Copies of checkpointed blocks' weights that autocast's cache holds to the end."""
        total = self.nothing
        for segment, count in zip(self.segments, self.counts, strict=True):
            if self.is_checkpointed(segment):
                for storage in segment.program.cached:
                    total = total + count * self._sizes(segment)[storage]
        return total

    def _held_forward(self, index: int) -> Column:
        """Bytes held while a segment runs forward: gathered, exchanged, left from the last step."""
        exchanged = self._exchanged[0] * int(self.segments[index].repeats)
        held: Column = self.working.forward(index) + self._from_last_step(index) + exchanged
        return held

    def _from_last_step(self, index: int) -> Column:
        """What the step before left while a segment runs forward.

        Lightning's recipes name the loss, and with it the graph whose nodes keep inputs as
        attributes, until the next one is taken; the logits until the model has returned others.
        """
        if training_loop(self.training) != "fabric" or self.training.longest_batch_first:
            return self.nothing
        logits, head = self._held_outputs, self.segments[index]
        if head.role == "head":
            events, sizes = head.program.forward, self._sizes(head)
            until = walk(until_made(events, head.program.output_storages[-1]), sizes).peak_bytes
            logits = np.maximum(logits + until - walk(events, sizes).peak_bytes, 0)
        return self._lingering + logits

    @cached_property
    def _lingering(self) -> Column:
        """Inputs that nodes of a graph keep as attributes."""
        total = self.nothing
        for segment, count in zip(self.segments, self.counts, strict=True):
            sizes = self._sizes(segment)
            for storage in segment.program.lingering:
                total = total + count * sizes[storage]
        return total

    @cached_property
    def _exchanged(self) -> tuple[Column, Column]:
        """Bytes of context parallelism's exchanges in a block's two passes."""
        width = self.widths.types.compute
        return context_bytes(self.layout.context_method, self.dims, self.parallel.cp, width)

    def _forward_pass(self, segment: Segment) -> Pass:
        checkpointed = self.is_checkpointed(segment)
        return segment.program.checkpointed if checkpointed else segment.program.forward

    @property
    def _offloads_inputs(self) -> bool:
        """Inputs of checkpointed blocks wait in host memory."""
        return self.training.checkpoint_policy.offload or self.layout.offload_activations

    @cached_property
    def _left_for_host(self) -> Column:
        """Bytes of a checkpointed block's input that wait in host memory for its backward pass."""
        if not (self._offloads_inputs and self._recomputes):
            return self.nothing
        width = residual_itemsize(self.architecture.style, self._mode())
        return round_up(elements(("B", "S", "H"), self.dims) * width)

    def _backward(self) -> list[Stage]:
        """Head first; at the end the root's gradients are reduced."""
        stages = []
        for index, segment in reversed(list(enumerate(self.segments))):
            stages.append(
                Stage(
                    "loss" if segment.role == "head" else "backward",
                    segment.name,
                    self._backward_pass(segment),
                    self._sizes(segment),
                    self.counts[index],
                    self._during_backward(index),
                    self._after_backward(index) + self._fetched(segment),
                    after_part=self._after_part(segment),
                )
            )
        nothing, once = self.nothing, np.ones_like(self.dp)
        first = self.segments[0]
        closing = self.working.closing()
        stages.append(
            Stage("backward", first.name, EMPTY_PASS, self._sizes(first), once, closing, nothing)
        )
        return stages

    def _during_backward(self, index: int) -> Column:
        segment = self.segments[index]
        held = self.working.backward(index) + self._exchanged[1] * int(segment.repeats)
        held = held + self._beyond_peak(index)
        if self.is_checkpointed(segment):
            held = held + self.working.recomputing(index)
        if self.layout.megatron.overlaps_experts and segment.repeats:
            held = held + self._passing(index)
        # An offloaded input is back before its block runs, and the next one on its way.
        return held + 2 * self._fetched(segment)

    def _passing(self, index: int) -> Column:
        """What a segment's forward pass holds for a moment beyond what it saves."""
        made = self.walks
        passing: Column = made.peak_bytes[index] - made.delta_bytes[index]
        return np.where(self.counts[index] > 0, passing, 0)

    def _beyond_peak(self, index: int) -> Column:
        """What of `at_end` exceeds the bytes a pass has given back by then."""
        at_end = self.working.at_end(index)
        if not at_end.any():
            return at_end
        row, made = 2 * len(self.segments) - 1 - index, self.walks
        given_back = made.peak_bytes[row] - made.delta_bytes[row]
        beyond: Column = np.maximum(at_end - given_back, 0)
        return beyond

    def _after_part(self, segment: Segment) -> str:
        """Where what stays of an instance counts: inputs gone to the host, or gradients."""
        leaves = self.is_checkpointed(segment) and self._offloads_inputs
        return "hidden-states" if leaves else "reduced-or-gathered"

    def _fetched(self, segment: Segment) -> Column:
        return self._left_for_host * int(self.is_checkpointed(segment))

    def _after_backward(self, index: int) -> Column:
        """What stays of a segment's gradients; shards that were there before are not counted twice.

        Offloaded gradients leave as they are reduced.
        """
        if self.adds_in_place:
            return self.nothing
        if self.training.optimizer.in_backward:
            return -self._whole_gradients(index)
        left = self.working.after_backward(index)
        return left - self.working.left_shard(index) if self.adding else left

    def _whole_gradients(self, index: int) -> Column:
        """The gradients of a segment as the tape makes them; of the whole root at its last."""
        width = self.states.gradient_width
        if self.segments[index].repeats:
            return self.states.whole(index, width)
        if index:
            return self.nothing
        of_root = [i for i, segment in enumerate(self.segments) if not segment.repeats]
        total: Column = np.sum([self.states.whole(i, width) for i in of_root], axis=0)
        return total

    def _backward_pass(self, segment: Segment) -> Pass:
        program = segment.program
        if self.is_checkpointed(segment):
            return program.recompute_accumulating if self.adds_in_place else program.recompute
        return program.backward_accumulating if self.adds_in_place else program.backward

    @cached_property
    def _held_outputs(self) -> Column:
        """The model's output object keeps the logits, and caches, until the step is over."""
        head = self.segments[-1]
        outputs = head.program.output_storages[1:]
        held: Column = self.nothing
        for storage in outputs:
            held = held + self._sizes(head)[storage]
        held = held * self.states.here(-1)
        for segment, count in zip(self.segments, self.counts, strict=True):
            for storage in segment.program.staying:
                held = held + count * self._sizes(segment)[storage]
        return held
