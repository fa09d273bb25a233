"""Traces rows with the autograd functions of flash-linear-attention and causal-conv1d, whose
kernels do nothing.

``trace_delta_kernels.py ROWS.jsonl OUT.jsonl --packages DIR``: DIR holds the packages ``fla`` (of
fla-core's wheel), ``causal_conv1d`` (of its source distribution), ``triton`` and ``einops``. Their
Python code makes and saves every tensor as on a GPU; launching a kernel computes nothing.
"""

from __future__ import annotations

import contextlib
import sys
import types
from pathlib import Path
from typing import Any

# isort: split
import cuda_guard  # noqa: F401  (before torch)

# isort: split
import torch

# What torch and transformers look for at import comes before the packages.
import trace_rows


def install(packages: Path) -> None:
    """Makes the packages importable, before transformers loads a model that looks for them."""
    sys.path.append(str(packages))
    filters = types.ModuleType("causal_conv1d_cuda")
    nothing = {"causal_conv1d_fwd": _nothing, "causal_conv1d_bwd": _nothing}
    vars(filters).update(nothing)
    sys.modules["causal_conv1d_cuda"] = filters
    torch.cuda.device = lambda _index: contextlib.nullcontext()  # type: ignore[misc,assignment]
    from triton.runtime.jit import KernelInterface

    KernelInterface.__getitem__ = lambda _kernel, _grid: _nothing


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    """A kernel: everything it writes to is given to it."""


if __name__ == "__main__":
    sys.exit(trace_rows.trace_with(install, __doc__))
