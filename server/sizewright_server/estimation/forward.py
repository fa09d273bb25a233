"""The forward pass over a tape as allocations and releases, by reference count."""

from __future__ import annotations

from collections.abc import Sequence

from sizewright_server.estimation.tape import Event, Op, Tape


def _recorded(tape: Tape) -> set[int]:
    """Storages that only a pass with gradients makes."""
    return {i for i, storage in enumerate(tape.storages) if storage.recorded}


def run_operators(
    ops: Sequence[Op], alive: set[int], kept: set[int], *, stop: int, elsewhere: set[int]
) -> list[Event]:
    """Allocations and releases as operators run one after the other, up to `stop`.

    `alive` is what is there, and is changed; what is `kept` stays beyond its last use, and what
    lies `elsewhere` is not made here.
    """
    last = {v.storage: i for i, op in enumerate(ops) for v in (*op.inputs, *op.outputs)}
    events = []
    for index, op in enumerate(ops[:stop]):
        for storage in dict.fromkeys(out.storage for out in op.outputs):
            if storage not in alive and storage not in elsewhere:
                alive.add(storage)
                events.append(Event(+1, storage))
        for storage in dict.fromkeys(value.storage for value in (*op.inputs, *op.outputs)):
            if last[storage] == index and storage in alive and storage not in kept:
                alive.discard(storage)
                events.append(Event(-1, storage))
    return events


def forward_pass(
    tape: Tape,
    stop: int,
    *,
    keep_saved: bool,
    keep_inputs: bool,
    spared: frozenset[int] = frozenset(),
    given: frozenset[int] = frozenset(),
) -> list[Event]:
    """Allocation at the operator that makes a storage, release after its last use.

    `keep_saved` with gradients recorded, else as under `no_grad`; `keep_inputs` for a checkpoint.

    `stop` is the operator before which the pass ends. The caller's name for an input dies when the
    block returns, unless a checkpoint keeps it. Storages that are `spared` outlive the pass; those
    that are `given` are there before it.
    """
    inputs = {value.storage for value in tape.inputs}
    kept = {value.storage for value in (*tape.outputs, *tape.lent)}
    kept |= inputs if keep_inputs or not tape.inputs_die else set()
    kept |= {
        i
        for i, s in enumerate(tape.storages)
        if s.external or (keep_saved and (s.saves or s.stays))
    }
    kept |= spared
    alive: set[int] = inputs | given | {value.storage for value in tape.received}
    # Counted as there throughout, so that they are neither made nor freed.
    without = set() if keep_saved else _recorded(tape) - spared
    alive, kept = alive | without, kept | without
    external = {i for i, s in enumerate(tape.storages) if s.external}
    events = run_operators(tape.ops, alive, kept, stop=stop, elsewhere=external)
    # A recomputation that stops early unwinds the Python frame, and its names with it.
    left = alive - kept if stop < len(tape.ops) else set()
    outputs = {value.storage for value in (*tape.outputs, *tape.lent)}
    for storage in inputs - outputs if not (keep_inputs or tape.inputs_stay) else set():
        if storage in alive and not (keep_saved and tape.storages[storage].saves):
            left.add(storage)
    return events + [Event(-1, storage) for storage in sorted(left)]
