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
from sizewright_server.estimation.timeline import Course, Stage
from sizewright_server.estimation.training_setup import TrainingSetup
from sizewright_server.estimation.transformer import residual_itemsize
from sizewright_server.estimation.walks import Walk, until_made, walk, walk_all


class TrainingPasses(TrainingSetup):
    """A group with its passes: what each stage runs, holds and leaves."""

    @cached_property
    def all_stages(self) -> tuple[Stage, ...]:
        """The stages of forward, loss and backward, the root's reduction behind them."""
        course = self.course
        rows = zip(
            course.phases,
            self._order,
            self._passes,
            course.count,
            course.during_bytes,
            course.after_bytes,
            strict=True,
        )
        return tuple(
            Stage(
                phase,
                self.segments[index].name,
                events,
                self._sizes(self.segments[index]),
                count,
                during,
                after,
                after_part=self._after_part(index, events),
            )
            for phase, index, events, count, during, after in rows
        )

    @property
    def forward_stages(self) -> tuple[Stage, ...]:
        """Blocks one after the other; the working set says what is gathered for them."""
        return self.all_stages[: len(self.segments)]

    @cached_property
    def _order(self) -> tuple[int, ...]:
        """The segment of each stage: all forward, all backward, and the root that closes."""
        count = len(self.segments)
        return (*range(count), *reversed(range(count)), 0)

    @cached_property
    def _passes(self) -> list[Pass]:
        forward = [self._forward_pass(segment) for segment in self.segments]
        backward = [self._backward_pass(segment) for segment in reversed(self.segments)]
        return [*forward, *backward, EMPTY_PASS]

    @cached_property
    def walks(self) -> Walk:
        """The walks of the stages' passes: a row each, the forward passes first."""
        return walk_all(self._passes, self._order, [self._sizes(s) for s in self.segments])

    @cached_property
    def course(self) -> Course:
        """The stages as tables; the working set says what is gathered for them."""
        fetched = self._fetched
        during = self._during_backward() + 2 * fetched
        after = self._after_backward() + fetched
        closing, once = self.working.closing()[None], np.ones_like(self.counts[:1])
        return Course(
            self._phases,
            np.concatenate((self.counts, self.counts[::-1], once)),
            np.concatenate((self._held_forward(), during[::-1], closing)),
            np.concatenate((self._after_forward() - fetched, after[::-1], 0 * once)),
            self.walks,
        )

    @property
    def _phases(self) -> tuple[str, ...]:
        heads = [segment.role == "head" for segment in self.segments]
        forward = ["loss" if head else "forward" for head in heads]
        backward = ["loss" if head else "backward" for head in reversed(heads)]
        return (*forward, *backward, "backward")

    @cached_property
    def _blocks(self) -> Column:
        """1 in the rows of blocks."""
        return np.array([[int(segment.repeats)] for segment in self.segments])

    @cached_property
    def _checkpointed(self) -> Column:
        """1 in the rows of segments that are recomputed in the backward pass."""
        return np.array([[int(self.is_checkpointed(segment))] for segment in self.segments])

    def _after_forward(self) -> Column:
        """What stays of a segment beyond its tape; autocast's cache is emptied at the end."""
        left = self.working.after_forward()
        casts = self._cached_casts
        if casts is self.nothing:
            return left
        heads: Column = np.array([[int(segment.role == "head")] for segment in self.segments])
        return left - heads * casts

    @cached_property
    def _cached_casts(self) -> Column:
        """Copies of checkpointed blocks' weights that autocast's cache holds to the end."""
        total = self.nothing
        for segment, count in zip(self.segments, self.counts, strict=True):
            if self.is_checkpointed(segment):
                for storage in segment.program.cached:
                    total = total + count * self._sizes(segment)[storage]
        return total

    def _held_forward(self) -> Column:
        """Bytes held while a segment runs forward: gathered, exchanged, left from the last step."""
        held = self.working.forward() + self._blocks * self._exchanged[0]
        if training_loop(self.training) != "fabric" or self.training.longest_batch_first:
            return held
        left: Column = np.array([self._from_last_step(segment) for segment in self.segments])
        return held + left

    def _from_last_step(self, segment: Segment) -> Column:
        """What the step before left while a segment runs forward.

        Lightning's recipes name the loss, and with it the graph whose nodes keep inputs as
        attributes, until the next one is taken; the logits until the model has returned others.
        """
        logits = self._held_outputs
        if segment.role == "head":
            events, sizes = segment.program.forward, self._sizes(segment)
            until = walk(until_made(events, segment.program.output_storages[-1]), sizes).peak_bytes
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
        if all(layout.cp == 1 for layout in self.layouts):
            return self.nothing, self.nothing
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

    def _during_backward(self) -> Column:
        """Bytes held while a segment runs backward.

        An offloaded input is back before its block runs, and the next one on its way.
        """
        held: Column = self.working.backward() + self._blocks * self._exchanged[1]
        held = held + self._beyond_peak() + self.working.recomputing() * self._checkpointed
        return held + self._passing() if self.layout.megatron.overlaps_experts else held

    def _passing(self) -> Column:
        """What a block's forward pass holds for a moment beyond what it saves."""
        made = self.walks.peak_bytes - self.walks.delta_bytes
        return np.where(self.counts > 0, made[: len(self.segments)] * self._blocks, 0)

    def _beyond_peak(self) -> Column:
        """What of `at_end` exceeds the bytes a pass has given back by then."""
        at_end = self.working.at_end()
        if not at_end.any():
            return at_end
        backward = slice(-2, len(self.segments) - 1, -1)
        given_back = (self.walks.peak_bytes - self.walks.delta_bytes)[backward]
        beyond: Column = np.where(at_end.any(axis=1, keepdims=True), at_end - given_back, 0)
        return np.maximum(beyond, 0)

    def _after_part(self, index: int, events: Pass) -> str:
        """Where what stays of an instance counts: inputs gone to the host, or gradients."""
        recomputed = self.is_checkpointed(self.segments[index]) and events is not EMPTY_PASS
        leaves = recomputed and self._offloads_inputs
        return "hidden-states" if leaves else "reduced-or-gathered"

    @cached_property
    def _fetched(self) -> Column:
        """Inputs of checkpointed blocks that come back from the host, of every segment."""
        return self._checkpointed * self._left_for_host

    def _after_backward(self) -> Column:
        """What stays of a segment's gradients; shards that were there before are not counted twice.

        Offloaded gradients leave as they are reduced.
        """
        if self.adds_in_place:
            return self.working.none
        if self.training.optimizer.in_backward:
            return -self._whole_gradients()
        left = self.working.after_backward()
        return left - self.working.left_shard() if self.adding else left

    def _whole_gradients(self) -> Column:
        """The gradients of a segment as the tape makes them; of the whole root at its last."""
        whole = self.states.whole(self.states.gradient_width)
        made = whole * self._blocks
        if not self.segments[0].repeats:
            made[0] = (whole * (1 - self._blocks)).sum(axis=0)
        return made

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
        held = held * self.states.here[-1]
        for segment, count in zip(self.segments, self.counts, strict=True):
            for storage in segment.program.staying:
                held = held + count * self._sizes(segment)[storage]
        return held
