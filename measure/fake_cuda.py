"""Makes the CPU build of torch behave like a GPU build for fake tensors.

Three things differ between the two builds and change the memory of a trace: the autograd engine
needs a device guard, autocast switches itself off without a GPU, and scaled dot product attention
falls back to the math kernel.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

# isort: split
import cuda_guard  # noqa: F401  (before torch)

# isort: split
import torch
import torch.cuda.amp.common
from torch.nn import functional
from transformers import masking_utils

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
HALF = (torch.bfloat16, torch.float16)
MASK_ALIGNMENT = 8
FLASH_MAX_HEAD_DIM = 256
SKIPPED_MASKS = ("_ignore_causal_mask_sdpa", "_ignore_bidirectional_mask_sdpa")


def autocast_cast(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """What autocast does to an argument of a lower-precision operator."""
    if tensor is None or not torch.is_autocast_enabled("cuda") or not tensor.is_floating_point():
        return tensor
    return tensor.to(torch.get_autocast_dtype("cuda"))


class GpuAttention:
    """``scaled_dot_product_attention`` with the kernel choice of a GPU of compute capability 8.0
    or later.
    """

    def __init__(self) -> None:
        self.kernels: collections.Counter[str] = collections.Counter()

    def choose(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any, causal: bool
    ) -> str:
        """``flash``, ``efficient`` or ``math``, in torch's order of preference."""
        dense = q.dim() == 4 and all(t.stride(-1) == 1 for t in (q, k, v))
        same_head_dim = q.shape[-1] == k.shape[-1] == v.shape[-1]
        lopsided_causal = causal and q.shape[-2] != k.shape[-2]
        half = q.dtype in HALF and q.shape[-1] <= FLASH_MAX_HEAD_DIM
        if dense and half and mask is None and same_head_dim and not lopsided_causal:
            return "flash"
        # The memory-efficient kernel knows no grouped queries.
        if (
            dense
            and q.shape[1] == k.shape[1] == v.shape[1]
            and q.shape[-1] % (8 if q.dtype in HALF else 4) == 0
        ):
            return "efficient"
        return "math"

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        q, k, v, mask = (autocast_cast(t) for t in (query, key, value, attn_mask))
        if q is None or k is None or v is None:
            raise TypeError("query, key and value must be tensors")
        kernel = self.choose(q, k, v, mask, is_causal)
        self.kernels[kernel] += 1
        if kernel == "flash":
            return flash(q, k, v, dropout_p, is_causal, scale)
        if mask is not None and mask.dtype == torch.bool:
            lowest = torch.scalar_tensor(float("-inf"), dtype=q.dtype, device=q.device)
            mask = torch.where(mask, 0.0, lowest)
        if kernel == "efficient":
            return efficient(q, k, v, mask, dropout_p, is_causal, scale)
        math = torch.ops.aten._scaled_dot_product_attention_math
        return math(q, k, v, mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa)[
            0
        ]


def flash(
    q: Any, k: Any, v: Any, dropout: float, causal: bool, scale: float | None
) -> torch.Tensor:
    """The flash kernel, with head sizes padded to a multiple of 8 as torch does."""
    size = q.shape[-1]
    scale = size**-0.5 if scale is None else scale
    if size % 8:
        q, k, v = (functional.pad(t, (0, 8 - size % 8)) for t in (q, k, v))
    out = torch.ops.aten._scaled_dot_product_flash_attention(
        q, k, v, dropout, causal, False, scale=scale
    )[0]
    return out[..., :size] if size % 8 else out


def efficient(
    q: Any,
    k: Any,
    v: Any,
    mask: torch.Tensor | None,
    dropout: float,
    causal: bool,
    scale: float | None,
) -> torch.Tensor:
    """The memory-efficient kernel; masks are padded to its alignment and expanded, not copied."""
    if mask is not None:
        width = mask.shape[-1]
        if width % MASK_ALIGNMENT:
            mask = functional.pad(mask, (0, MASK_ALIGNMENT - width % MASK_ALIGNMENT))[..., :width]
        mask = mask.expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
    needs_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v))
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    return kernel(q, k, v, mask, needs_gradient, dropout, causal, scale=scale)[0]


def grouped_product(
    mat_a: torch.Tensor,
    mat_b: torch.Tensor,
    *_scales: Any,
    offs: Any = None,
    out_dtype: Any = None,
    **_more: Any,
) -> torch.Tensor:
    """The result of ``_grouped_mm`` in any type: a GPU runs what is not bfloat16 group by group
    (aten/native/cuda/GroupedBlas.cpp), where the meta function knows bfloat16 alone.
    """
    made = torch._meta_registrations._create_grouped_mm_output_tensor
    result: torch.Tensor = made(mat_a, mat_b, offs, out_dtype)
    return result


def without_padding(name: str) -> Callable[..., bool]:
    """A question of transformers whether a mask can be left out, asked of a mask that hides
    nothing: some models make one of ones where none is given, and its values are not there to see.
    """
    ask = getattr(masking_utils, name)

    def asked(_padding: torch.Tensor | None, *more: Any, **named: Any) -> bool:
        answer: bool = ask(None, *more, **named)
        return answer

    return asked


@contextmanager
def pretend_gpu(*, padded: bool = True) -> Iterator[GpuAttention]:
    """Answers of a GPU build for the time of the block; yields the attention, which counts its
    kernels. `padded`: masks that are given hide something.
    """
    attention = GpuAttention()
    find_packed = masking_utils.find_packed_sequence_indices

    def find_none_packed(position_ids: torch.Tensor) -> None:
        # The positions have no values to look at, and a row that states no packing has none.
        find_packed(position_ids)

    with ExitStack() as stack:
        for owner, name, answer in (
            (functional, "scaled_dot_product_attention", attention),
            (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
            (torch.cuda, "is_bf16_supported", lambda *_: True),
            (torch.cuda, "get_device_capability", lambda *_: (8, 0)),
            (masking_utils, "find_packed_sequence_indices", find_none_packed),
            (torch._meta_registrations, "_meta_grouped_mm_common", grouped_product),
        ):
            stack.enter_context(mock.patch.object(owner, name, answer))
        for name in () if padded else SKIPPED_MASKS:
            stack.enter_context(mock.patch.object(masking_utils, name, without_padding(name)))
        yield attention
