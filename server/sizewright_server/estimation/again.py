"""Parts of a block whose tensors go in the forward pass and come back for the backward pass.

Megatron Core recomputes modules of a layer: whole ones from their inputs
(tensor_parallel.checkpoint), or cheap ones whose output alone is dropped once it has been used, and
made again when the gradient of what used it arrives (CheckpointWithoutOutput). Fine-grained
offloading moves a module's inputs to the host and back
(core/pipeline_parallel/fine_grained_activation_offload.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.forward import run_operators
from sizewright_server.estimation.tape import Event, Op, Tape


class Again:
    """Operators of a tape from here to `stop`, run again in the backward pass.

    Operators up to `close` that save what these make keep nothing of it either.
    """

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self._start = self._stop = len(tape.ops)

    def stop(self) -> None:
        """The last of the operators has been recorded."""
        self._stop = len(self.tape.ops)

    def close(self) -> int:
        """What uses their results has been recorded: the backward pass makes them again here.

        Returns how many operators were put before them.
        """
        tape, ops = self.tape, self.tape.ops
        region = ops[self._start : self._stop]
        made = {v.storage for op in region for v in op.outputs}
        made = {s for s in made if not tape.storages[s].external}
        read = dict.fromkeys(v.storage for op in region for v in op.inputs)
        inputs = tuple(s for s in read if s not in made and not tape.storages[s].external)
        dropped = [*_uncount(tape, region, None), *_uncount(tape, ops[self._stop :], made)]

        def run_again(run: Backward) -> None:
            run.save_again(dropped)
            run.events += _forward_again(tape, region, frozenset(dropped))

        ops.insert(self._start, Op((), (), inputs, _nothing))
        for storage in inputs:
            tape.storages[storage].saves += 1
        ops.append(Op((), (), (), run_again))
        return 1


@dataclass(frozen=True, slots=True)
class NeverAgain:
    """Operators that run once."""

    def stop(self) -> None:
        """Nothing is kept apart."""

    def close(self) -> int:
        """Nothing is made again, and nothing put before."""
        return 0


def moved_away(tape: Tape, start: int, stop: int) -> None:
    """What operators from `start` to `stop` save waits in host memory for the backward pass."""
    own = {i for i, storage in enumerate(tape.storages) if not storage.external}
    dropped = _uncount(tape, tape.ops[start:stop], own)
    tape.moved |= set(dropped)

    def fetch(run: Backward) -> None:
        run.save_again(dropped)
        for storage in dict.fromkeys(dropped):
            if not tape.storages[storage].saves:
                run.events.append(Event(+1, storage))

    tape.ops.append(Op((), (), (), fetch))


def _nothing(_run: Backward) -> None:
    """The node that holds a checkpoint's inputs: they die when it has run."""


def _uncount(tape: Tape, ops: Iterable[Op], only: set[int] | None) -> list[int]:
    """Takes what operators save, all or of some storages, off what the forward pass keeps."""
    dropped = []
    for op in ops:
        for storage in op.saves:
            if (id(op), storage) in tape.uncounted or not (only is None or storage in only):
                continue
            tape.uncounted.add((id(op), storage))
            tape.storages[storage].saves -= 1
            dropped.append(storage)
    return dropped


def _forward_again(tape: Tape, region: list[Op], saved: frozenset[int]) -> list[Event]:
    """Allocations and frees as the operators run once more, with what they save kept."""
    there = {i for i, storage in enumerate(tape.storages) if storage.external or storage.saves}
    return run_operators(region, set(), set(saved), stop=len(region), elsewhere=there)
