"""Traces DPO as trl 1.16 runs it: ``trace_preference.py ROWS.jsonl OUT.jsonl [--only TEXT]``.

A row's ``ref`` says where the reference's log-probabilities are from: ``model`` (another model
beside it), ``adapter-off`` or ``precomputed``. ``batch`` counts pairs. The log-probabilities are
those of trl's own kernel, whose Triton parts do not run; every token counts. Run it with
``python -O``, as `trace_liger.py`.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any
from unittest import mock

# isort: split
import cuda_guard  # noqa: F401  (before torch)

# isort: split
import torch
from torch.nn import functional
from trl.kernels import chunked_logprob

import models
import workloads
from memory_trace import MemoryTrace
from trace_liger import without_kernels
from trace_rows import rows_parser, trace_all

BETA = 0.1
WORDS_OF_A_TILE = 32_768
OUTPUTS = ("log_probs", "entropy", "mean_logits", "is_top1")


class References:
    """The reference models of traced ones, which must not be among their modules."""

    def __init__(self, build: Any) -> None:
        self.build = build
        self.last: Any = None

    def __call__(self, workload: dict[str, Any]) -> torch.nn.Module:
        model: torch.nn.Module = self.build(workload)
        if workload["ref"] == "model":
            self.last = self.build(workload | {"grad_ckpt": False})
            self.last.eval().requires_grad_(False)
        return model


def log_probabilities(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Sums of every sequence (trl/trainer/utils.py, add_fused_lm_head)."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    labels = inputs["labels"][:, 1:]
    body = getattr(base, base.base_model_prefix)
    asked = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    hidden = body(**asked, use_cache=False).last_hidden_state[:, :-1]
    # A mask of tokens picks rows, whose number would depend on its values: here it is all.
    every = torch.empty(labels.numel(), dtype=torch.long, device="cuda")
    rows = hidden.reshape(labels.numel(), -1).index_select(0, every)
    head = base.get_output_embeddings()
    made = chunked_logprob.ChunkedLogProbFunction.apply(
        rows, head.weight, head.bias, labels.reshape(-1), 1.0, WORDS_OF_A_TILE, None, 1.0, OUTPUTS
    )
    found: torch.Tensor = made[0].view(labels.shape).sum(1)
    return found


def steps_with(references: References) -> Any:
    """The forward and backward pass of a batch of pairs, in place of `workloads`' own."""

    def forward_backward(
        workload: dict[str, Any], model: Any, trace: MemoryTrace, mark: dict[str, Any]
    ) -> torch.Tensor:
        trace.enter_phase("input")
        shape = (2 * workload["batch"], workload["seq"])
        names = ("input_ids", "attention_mask", "labels")
        inputs = {name: torch.empty(shape, dtype=torch.long, device="cuda") for name in names}
        trace.enter_phase("fwd")
        with workloads.autocast(workload):
            own = log_probabilities(model, inputs)
            with ExitStack() as stack:
                stack.enter_context(torch.no_grad())
                reference = torch.empty(shape[0], device="cuda")
                if workload["ref"] == "adapter-off":
                    stack.enter_context(model.disable_adapter())
                    reference = log_probabilities(model, inputs)
                elif workload["ref"] == "model":
                    reference = log_probabilities(references.last, inputs)
            chosen, rejected = (own - reference).chunk(2)
            loss = -functional.logsigmoid(BETA * (chosen - rejected)).mean()
        mark["live_end_fwd"], mark["end_fwd_by_cat"] = trace.live_bytes, trace.breakdown()
        trace.enter_phase("bwd")
        loss.backward()
        mark["live_end_bwd"] = trace.live_bytes
        return loss

    return forward_backward


def main() -> int:
    asked = rows_parser(__doc__).parse_args()
    references = References(models.build_model)
    with ExitStack() as stack:
        stack.enter_context(without_kernels())
        for owner, name, answer in (
            (models, "build_model", references),
            (workloads, "forward_backward", steps_with(references)),
            (chunked_logprob, "_use_triton", lambda _device: True),
        ):
            stack.enter_context(mock.patch.object(owner, name, answer))
        return trace_all(asked)


if __name__ == "__main__":
    sys.exit(main())
