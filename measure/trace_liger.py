"""Traces rows with Liger's kernels: ``trace_liger.py ROWS.jsonl OUT.jsonl [--only TEXT]``.

A row's ``liger`` has the switches of Liger's `apply_liger_kernel_to_*`, such as
``{"rms_norm": true, "rope": false}``. Liger's Python code runs; its Triton kernels do not. Run it
with ``python -O``: the bounds of labels, which have no values here, are asserted. Each row has a
process of its own, since Liger replaces functions of transformers' modules.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

# isort: split
import cuda_guard  # noqa: F401  (before torch)

# isort: split
import torch
from liger_kernel.ops import cross_entropy, fused_linear_cross_entropy
from liger_kernel.transformers import monkey_patch
from triton.runtime.autotuner import Autotuner, Heuristics
from triton.runtime.jit import JITFunction

import models
from trace_rows import asked_rows, in_one_line, rows_parser, traced

A100 = SimpleNamespace(multi_processor_count=108, total_memory=80 << 30, major=8, minor=0)


class KnownGradient:
    """torch, for a comparison of a loss's gradient with 1, which it is at the root of a pass."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def equal(self, *_: Any) -> bool:
        return True

    def tensor(self, *_: Any, **__: Any) -> None:
        return None


def nothing(*_: Any, **__: Any) -> None:
    """A kernel that does not run."""


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """Launches that do nothing, on a GPU that is there."""
    answers: list[tuple[Any, str, Any]] = [
        (JITFunction, "run", nothing),
        (Autotuner, "run", nothing),
        (Heuristics, "run", nothing),
        (cross_entropy, "torch", KnownGradient()),
        (fused_linear_cross_entropy, "torch", KnownGradient()),
        (torch.cuda, "get_device_properties", lambda *_: A100),
        (torch.cuda, "current_device", lambda: 0),
        (torch.cuda, "device", lambda *_: contextlib.nullcontext()),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, answer in answers:
            stack.enter_context(mock.patch.object(owner, name, answer))
        yield


def with_liger(build: Any) -> Any:
    """A maker of models that puts Liger's kernels into them."""

    def made(workload: dict[str, Any]) -> torch.nn.Module:
        model: Any = build(workload)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        apply = monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN[base.config.model_type]
        known = inspect.signature(apply).parameters
        switches = {name: on for name, on in workload["liger"].items() if name in known}
        apply(model=base, **switches)
        whole: torch.nn.Module = model
        return whole

    return made


def trace_alone(row: dict[str, Any], out: Path) -> None:
    """Traces a row in a process of its own and adds it to the file."""
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code:
            raise RuntimeError(f"{row['id']}: its process ended with {code}")
        return
    with (
        without_kernels(),
        mock.patch.object(models, "build_model", with_liger(models.build_model)),
    ):
        done = traced(row)
    with out.open("a", encoding="utf-8") as file:
        file.write(in_one_line(done))
    os._exit(0)


def main() -> None:
    asked = rows_parser(__doc__).parse_args()
    asked.out.write_text("", encoding="utf-8")
    for row in asked_rows(asked):
        trace_alone(row, asked.out)


if __name__ == "__main__":
    main()
