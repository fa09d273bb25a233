"""Traces rows with the autograd functions of mamba-ssm and causal-conv1d, whose kernels do nothing.

``trace_scan_kernels.py ROWS.jsonl OUT.jsonl --packages DIR``: DIR holds the unpacked source
distributions of both (``mamba_ssm`` and ``causal_conv1d`` packages on its first or second level)
and einops. Their Python code makes and saves every tensor as on a GPU; the CUDA and Triton kernels
are stand-ins that allocate what the C++ side allocates (csrc/selective_scan/selective_scan.cpp,
csrc/causal_conv1d.cpp) and compute nothing.
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

# What torch and transformers look for at import comes before the stand-ins.
import trace_rows

#: Tokens between two states that the scan's kernel writes down.
SCAN_CHUNK = 2048
#: Streaming multiprocessors of the pretended GPU, an A100's.
MULTIPROCESSORS = 108


class Config:
    """triton.Config: the block sizes that a wrapper may ask for."""

    def __init__(
        self, kwargs: dict[str, int], num_stages: int = 1, num_warps: int = 4, **_more: Any
    ) -> None:
        self.kwargs, self.num_stages, self.num_warps = kwargs, num_stages, num_warps


class Kernel:
    """A Triton kernel that runs nothing; of its configurations the first is the best."""

    def __init__(self, configs: list[Config] | None = None) -> None:
        self.configs = configs or []
        self.best_config = configs[0] if configs else None

    def __getitem__(self, _grid: Any) -> Any:
        return lambda *_args, **_kwargs: None


def _kernel(function: Any = None, **_options: Any) -> Any:
    return Kernel() if function is not None else lambda _function: Kernel()


def _autotune(configs: list[Config], **_options: Any) -> Any:
    return lambda _kernel: Kernel(configs)


def _heuristics(_values: Any) -> Any:
    return lambda kernel: kernel


def _triton() -> types.ModuleType:
    triton, language = types.ModuleType("triton"), types.ModuleType("triton.language")
    triton.__version__ = "3.2.0"  # type: ignore[attr-defined]
    parts = {
        "Config": Config,
        "autotune": _autotune,
        "heuristics": _heuristics,
        "jit": _kernel,
        "language": language,
        "cdiv": lambda a, b: -(-a // b),
        "next_power_of_2": lambda n: 1 << (n - 1).bit_length(),
    }
    vars(triton).update(parts)
    language.constexpr = int  # type: ignore[attr-defined]
    language.__getattr__ = lambda name: name  # type: ignore[method-assign]
    sys.modules |= {"triton": triton, "triton.language": language}
    return triton


def _scan_forward(u: Any, delta: Any, a: Any, b: Any, c: Any, d: Any, z: Any, *_more: Any) -> Any:
    """selective_scan_fwd: the result, states on the way, and the gated result."""
    chunks = -(-u.shape[-1] // SCAN_CHUNK)
    out = torch.empty_like(delta)
    written = u.new_empty((u.shape[0], u.shape[1], chunks, 2 * a.shape[1]), dtype=a.dtype)
    return [out, written] if z is None else [out, written, torch.empty_like(z)]


def _scan_backward(
    u: Any,
    delta: Any,
    a: Any,
    b: Any,
    c: Any,
    d: Any,
    z: Any,
    bias: Any,
    _dout: Any,
    _x: Any,
    out: Any,
    dz: Any,
    _softplus: bool,
    again: bool,
) -> Any:
    """selective_scan_bwd: gradients, those of B and C in fp32."""
    wide = {"dtype": torch.float32}
    made = [torch.empty_like(u), torch.empty_like(delta), torch.zeros_like(a)]
    made += [torch.zeros_like(b, **wide), torch.zeros_like(c, **wide)]
    made += [None if value is None else torch.zeros_like(value) for value in (d, bias)]
    if z is not None:
        made.append(torch.empty_like(z) if dz is None else dz)
    return [*made, torch.empty_like(out)] if again else made


def _filter_backward(
    x: Any, weight: Any, bias: Any, _dout: Any, _index: Any, _first: Any, _last: Any, *_more: Any
) -> None:
    """causal_conv1d_bwd of channels first: everything is given to it."""


def install(packages: Path) -> None:
    """Makes both packages importable, before transformers loads a model that looks for them."""
    _triton()
    scan = types.ModuleType("selective_scan_cuda")
    vars(scan).update(fwd=_scan_forward, bwd=_scan_backward)
    filters = types.ModuleType("causal_conv1d_cuda")
    vars(filters).update(causal_conv1d_fwd=lambda *_args: None, causal_conv1d_bwd=_filter_backward)
    sys.modules |= {"selective_scan_cuda": scan, "causal_conv1d_cuda": filters}
    for folder in (packages, *packages.iterdir()):
        if (folder / "einops").is_dir() or (folder / "causal_conv1d").is_dir():
            sys.path.insert(0, str(folder))
    home = next(packages.glob("**/mamba_ssm/__init__.py")).parent
    package = types.ModuleType("mamba_ssm")
    # Its own __init__ imports whole models with what they need.
    package.__path__ = [str(home)]
    sys.modules["mamba_ssm"] = package
    torch.cuda.device = lambda _index: contextlib.nullcontext()  # type: ignore[misc,assignment]
    properties = types.SimpleNamespace(multi_processor_count=MULTIPROCESSORS, warp_size=32)
    torch.cuda.get_device_properties = lambda *_: properties  # type: ignore[assignment,misc]
    from mamba_ssm.ops import selective_scan_interface as interface

    vars(package).update(
        mamba_inner_fn=interface.mamba_inner_fn, selective_scan_fn=interface.selective_scan_fn
    )


if __name__ == "__main__":
    sys.exit(trace_rows.trace_with(install, __doc__))
