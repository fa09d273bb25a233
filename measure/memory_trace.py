"""Records every allocation and every free of tensor storage on the fake GPU."""

from __future__ import annotations

import collections
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

# isort: split
import cuda_guard  # noqa: F401  (before torch)

# isort: split
import torch
from torch.distributed.tensor import DTensor
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

ROUND_BYTES = 512  # the caching allocator hands out multiples of this
ROOT = "(root)"  # what the outermost module is called


def rounded(size: int) -> int:
    """Bytes the caching allocator counts for a request of ``size`` bytes (an empty tensor takes
    none).
    """
    return -(-size // ROUND_BYTES) * ROUND_BYTES


@dataclass(slots=True)
class Block:
    """One storage on the GPU."""

    number: int
    size_bytes: int
    requested_bytes: int
    category: str
    operator: str
    shape: tuple[int, ...]
    dtype: str
    module: str


@dataclass(slots=True)
class Event:
    """One allocation (positive) or free (negative)."""

    delta_bytes: int
    block: Block
    step: int
    phase: str
    operator: str
    module: str
    live_bytes: int


@dataclass(slots=True)
class Peak:
    """The largest live total and what it was made of."""

    bytes: int = 0
    step: int = 0
    phase: str = ""
    event: int = 0
    breakdown: dict[str, int] = field(default_factory=dict)


class ModuleStack:
    """Which module the forward pass is in; backward looks its operators up by autograd sequence
    number.
    """

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.stack: list[str] = []
        self.by_sequence: dict[int, str] = {}
        self.backward = False
        self.handles: list[Any] = []

    def watch(self, model: torch.nn.Module) -> None:
        """Names the modules of ``model`` and follows calls to them."""
        self.names = {id(module): name or ROOT for name, module in model.named_modules()}
        self.handles = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        ]

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _enter(self, module: torch.nn.Module, _args: Any) -> None:
        self.stack.append(self.names.get(id(module), type(module).__name__))

    def _leave(self, _module: torch.nn.Module, _args: Any, _out: Any) -> None:
        if self.stack:
            self.stack.pop()

    def current(self) -> str:
        """The module path; in backward followed by the name of the autograd node."""
        if not self.backward:
            name = self.stack[-1] if self.stack else ""
            # The first operator to see a number is the one whose node took the number before it.
            self.by_sequence.setdefault(torch.autograd._get_sequence_nr(), name)
            return name
        if self.stack:
            return f"{self.stack[-1]} (recompute)"
        node = torch._C._current_autograd_node()
        if node is None:
            return ""
        number = node._sequence_nr()
        # A node takes its number before its kernel runs, so the kernel saw the next one.
        name = self.by_sequence.get(number + 1, self.by_sequence.get(number, ""))
        return f"{name} <{node.name()}>"


class MemoryTrace(TorchDispatchMode):
    """Sees each operator below autograd and follows the storages it returns until they die."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, Block] = {}
        self.by_category: collections.Counter[str] = collections.Counter()
        self.live_bytes = 0
        self.operator_count = 0
        self.step = 0
        self.phase = "param"
        self.events: list[Event] = []
        self.peak = Peak()
        self.phase_peaks: dict[tuple[int, str], int] = {}
        self.modules = ModuleStack()
        self._watchers: dict[int, weakref.ref[Any]] = {}
        #: Storages whose memory was given back while tensors still refer to them.
        self._emptied: dict[int, Block] = {}
        self._next = 0
        self._operator = ""
        self._module = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operator_count += 1
        if func is torch.ops.aten._local_scalar_dense.default:
            return concrete_scalar(args[0])
        if func.namespace in ("aten", "c10d"):
            self._operator = str(func)
            self._module = self.modules.current()
        result = func(*args, **(kwargs or {}))
        for found in tree_leaves(result):
            # Of a distributed tensor only the rank's own part is there.
            leaf = local(found)
            if isinstance(leaf, torch.Tensor) and leaf.device.type == "cuda":
                self.see(leaf)
        return result

    def enter_phase(self, phase: str, step: int | None = None) -> None:
        """New allocations belong to ``phase`` from now on."""
        self.phase = phase
        self.step = self.step if step is None else step
        self.modules.backward = phase == "bwd"
        self._operator = self._module = ""
        self._note_peak()

    def see(self, tensor: torch.Tensor) -> None:
        """Counts the storage of ``tensor`` if it is new."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        size = storage.nbytes()
        if key in self.live or key in self._emptied or size == 0:
            return
        block = Block(
            self._next, rounded(size), size, self.phase, self._operator,
            tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), self._module,
        )  # fmt: skip
        self._next += 1
        self.live[key] = block
        self._watchers[key] = weakref.ref(storage, lambda _ref: self._free(key))
        self._account(block, block.size_bytes)
        self._note_peak()

    def resized(self, storage: Any) -> None:
        """Counts a storage that is known by its new size."""
        key = storage._cdata
        if key not in self._watchers:
            return
        old, size = self.live.pop(key, None), storage.nbytes()
        if old is not None:
            self._account(old, -old.size_bytes)
        elif key in self._emptied:
            old = self._emptied.pop(key)
        if old is None:
            return
        if size == 0:
            self._emptied[key] = old
            return
        self.live[key] = replace(old, size_bytes=rounded(size), requested_bytes=size)
        self._account(self.live[key], rounded(size))
        self._note_peak()

    def categorise(self, tensors: Iterable[torch.Tensor | None], category: str) -> None:
        """Moves the storages of ``tensors`` to another category of the breakdown."""
        for given in tensors:
            tensor = local(given)
            if tensor is None or tensor.device.type != "cuda":
                continue
            block = self.live.get(tensor.untyped_storage()._cdata)
            if block is not None and block.category != category:
                self.by_category[block.category] -= block.size_bytes
                self.by_category[category] += block.size_bytes
                block.category = category

    def breakdown(self) -> dict[str, int]:
        return {name: size for name, size in sorted(self.by_category.items()) if size}

    def stop(self) -> None:
        """Ends the record: what dies afterwards only dies because the run is over."""
        self._watchers.clear()

    def _free(self, key: int) -> None:
        self._watchers.pop(key)
        self._emptied.pop(key, None)
        block = self.live.pop(key, None)
        if block is not None:
            self._account(block, -block.size_bytes)

    def _account(self, block: Block, delta: int) -> None:
        self.live_bytes += delta
        self.by_category[block.category] += delta
        self.events.append(
            Event(
                delta, block, self.step, self.phase, self._operator, self._module, self.live_bytes
            )
        )

    def _note_peak(self) -> None:
        key = (self.step, self.phase)
        self.phase_peaks[key] = max(self.phase_peaks.get(key, 0), self.live_bytes)
        # Of equal peaks the later step's: by then the optimizer's states are known as such.
        later = self.step != self.peak.step and self.live_bytes == self.peak.bytes
        if self.live_bytes > self.peak.bytes or later:
            self.peak = Peak(
                self.live_bytes, self.step, self.phase, len(self.events) - 1, self.breakdown()
            )


def local(value: Any) -> Any:
    """A distributed tensor's part on this rank; anything else as it is."""
    return value._local_tensor if isinstance(value, DTensor) else value


def concrete_scalar(tensor: torch.Tensor) -> bool | int | float:
    """The value model code reads from a tensor whose contents do not exist.

    Masks are read to ask whether they hide nothing: they do hide something, or the row would not
    have stated one. A number that code itself wrote into a tensor is known.
    """
    known = getattr(tensor, "constant", None)
    if known is not None:
        with _disable_current_modes():
            value: bool | int | float = known.item()
        return value
    if tensor.dtype == torch.bool:
        return False
    return 1.0 if tensor.is_floating_point() else 1
