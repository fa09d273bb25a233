"""What a checkpointed block keeps, and what it makes again in the backward pass.

"matmuls" is torchtitan's operator policy (torch/utils/checkpoint.py's selective contexts): every
other matrix product and the attention kernel's results are kept. "attention" recomputes the scores
and what attention makes of them (Megatron's selective recomputation, arXiv 2205.05198), "mlp" what
the feed-forward layer saves. Everything else a block saves is kept. In a compiled block (COMPILED
behind the policy's name) what the backward pass never reads is dropped, where eager contexts keep
the last product of a block all the same (seen on PyTorch 2.13: the tensors a compiled block saves).
"""

from __future__ import annotations

from sizewright_server.estimation.forward import forward_pass
from sizewright_server.estimation.tape import Event, Tape

#: An attention matrix has samples, heads, queries and keys.
MATRIX_DIMS = 4
#: Behind a policy's name: the block is compiled.
COMPILED = " compiled"


def kept_storages(tape: Tape, policy: str) -> frozenset[int]:
    """Storages that stay from a block's forward pass to its recomputation, its inputs apart."""
    given = (i for i, storage in enumerate(tape.storages) if storage.handed_on)
    return _chosen(tape, policy).union(given)


def _chosen(tape: Tape, policy: str) -> frozenset[int]:
    if policy.endswith(COMPILED):
        return _read_again(tape, _chosen(tape, policy.removesuffix(COMPILED)))
    if policy == "matmuls":
        products = [i for i, s in enumerate(tape.storages) if s.result_of == "product"]
        attended = [i for i, s in enumerate(tape.storages) if s.result_of == "attention"]
        return frozenset([*products[::2], *attended])
    if policy == "":
        return frozenset()
    saved = [(i, s) for i, s in enumerate(tape.storages) if s.saves and not s.external]
    if policy == "mlp":
        return frozenset(i for i, s in saved if s.part != "mlp")
    return frozenset(
        i
        for i, s in saved
        if s.result_of != "attention"
        and not (len(s.shape) == MATRIX_DIMS and s.shape[1] == "NH" and s.shape[2] == "S")
    )


def _read_again(tape: Tape, kept: frozenset[int]) -> frozenset[int]:
    """Of what is kept, that from which saved tensors are made, or which is saved itself."""
    needed = {i for i, storage in enumerate(tape.storages) if storage.saves}
    for op in reversed(tape.ops):
        made = {value.storage for value in op.outputs}
        if made & needed - kept:
            needed |= {value.storage for value in op.inputs}
    return frozenset(kept & needed)


def checkpointed_events(tape: Tape, policy: str) -> list[Event]:
    """The forward pass without gradients: it keeps its inputs and what the policy says.

    Autocast's cache keeps its copies of the weights, until the model's forward pass is over.
    """
    kept = kept_storages(tape, policy) | {i for i, s in enumerate(tape.storages) if s.cached}
    return forward_pass(tape, len(tape.ops), keep_saved=False, keep_inputs=True, spared=kept)


def recompute_events(tape: Tape, policy: str) -> list[Event]:
    """The forward pass as non-reentrant checkpointing runs it again.

    It stops before the last operator that saves anything (torch/utils/checkpoint.py, early_stop),
    so that operator's own output is not made again.
    """
    last = max((i for i, op in enumerate(tape.ops) if op.saves), default=0)
    given = kept_storages(tape, policy)
    return forward_pass(tape, last, keep_saved=True, keep_inputs=True, given=given)
