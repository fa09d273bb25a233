"""The operators of PyTorch as the tape records them: what each makes, saves and needs backward.

Each method mirrors one entry of PyTorch 2.13's `tools/autograd/derivatives.yaml` (which tensors
are saved, which gradients are made) and the CUDA kernel's own buffers. Checked against traces of
the real code under fake CUDA tensors (`tests/accuracy`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sizewright_server.estimation.tape import Backward, Shape, Tape, Value

FP32 = 4
BOOL = 1
INT64 = 8

#: cudnn/flash kernels keep the log-sum-exp of a row in fp32 per head, padded to 32 rows.
LSE = FP32


@dataclass(frozen=True, slots=True)
class Types:
    """Bytes per element: of stored weights and of computed activations, and autocast on or off."""

    weight: int
    compute: int
    autocast: bool


class Ops:
    """Records operators on a tape under one dtype policy."""

    def __init__(self, tape: Tape, types: Types, *, training: bool) -> None:
        self.tape = tape
        self.types = types
        self.training = training
        self._casts: dict[int, Value] = {}

    # -- element-wise ---------------------------------------------------------------------------

    def cast(self, x: Value, itemsize: int) -> Value:
        """`x.to(dtype)`: a copy, unless it already has that width."""
        if x.itemsize == itemsize:
            return x
        out = self._fresh(x, itemsize=itemsize)

        def backward(run: Backward) -> None:
            if run.take(out) is not None:
                run.give(x, run.like(x))

        self.tape.record((x,), (out,), backward=backward)
        return out

    def unary(self, x: Value, *, saves: str = "input", scratch: int = 0) -> Value:
        """An activation; `saves` is "input", "output" (its result) or "none"."""
        out = self._fresh(x)
        saved = {"input": (x,), "output": (out,), "none": ()}[saves]

        def backward(run: Backward) -> None:
            if run.take(out) is not None:
                for _ in range(scratch):
                    run.like(x)
                run.give(x, run.like(x))

        self.tape.record((x,), (out,), saves=saved, backward=backward)
        return out

    def power(self, x: Value) -> Value:
        """`x.pow(n)`: saves its input; backward holds `x.pow(n - 1)` beside the product.

        Autocast runs it in fp32.
        """
        if self.types.autocast:
            x = self.cast(x, FP32)
        return self.unary(x, saves="input", scratch=1)

    def mean(self, x: Value, shape: Shape) -> Value:
        """A mean over one dimension; its gradient is expanded to the full shape."""
        out = self.tape.value(shape, x.itemsize, needs_grad=x.needs_grad)

        def backward(run: Backward) -> None:
            if run.take(out) is not None:
                run.give(x, run.like(x))

        self.tape.record((x,), (out,), backward=backward)
        return out

    def slice(self, x: Value, shape: Shape) -> Value:
        """`x[..., a:b]`: a view; backward fills zeros of the whole shape."""
        out = Value(x.storage, shape, x.itemsize, x.needs_grad)

        def backward(run: Backward) -> None:
            if run.take(out) is not None:
                run.give(x, run.like(x))

        self.tape.record((x,), (out,), backward=backward)
        return out

    def concatenate(self, parts: tuple[Value, ...], shape: Shape) -> Value:
        """`torch.cat`: a copy; the gradients are views of the result's gradient."""
        grad_needed = any(part.needs_grad for part in parts)
        out = self.tape.value(shape, parts[0].itemsize, needs_grad=grad_needed)

        def backward(run: Backward) -> None:
            grad = run.take(out)
            if grad is not None:
                for part in parts:
                    run.give(part, grad)

        self.tape.record(parts, (out,), backward=backward)
        return out

    def scale(self, x: Value) -> Value:
        """Multiplication or division by a Python number."""
        return self.unary(x, saves="none")

    def add(self, a: Value, b: Value) -> Value:
        """`a + b`, promoted to the wider type; the gradient passes to both as it is."""
        wide = max(a.itemsize, b.itemsize)
        out = self._fresh(a if len(a.shape) >= len(b.shape) else b, itemsize=wide, of=(a, b))

        def backward(run: Backward) -> None:
            grad = run.take(out)
            if grad is None:
                return
            for value in (a, b):
                if not value.needs_grad:
                    continue
                if value.itemsize == out.itemsize and value.shape == out.shape:
                    run.give(value, grad)
                else:
                    run.give(value, run.like(value))

        self.tape.record((a, b), (out,), backward=backward)
        return out

    def multiply(self, a: Value, b: Value) -> Value:
        """`a * b`, `b` broadcast to `a`; each saves the other where it needs a gradient."""
        wide = max(a.itemsize, b.itemsize)
        out = self._fresh(a, itemsize=wide, of=(a, b))
        saves = tuple(v for v, other in ((b, a), (a, b)) if other.needs_grad)

        def backward(run: Backward) -> None:
            if run.take(out) is None:
                return
            for value in (a, b):
                if not value.needs_grad:
                    continue
                full = run.new(out.shape, out.itemsize, "gradient of activations")
                if value.shape == out.shape and value.itemsize == out.itemsize:
                    run.give(value, full)
                else:
                    run.give(value, run.like(value))
                    run.free(full)

        self.tape.record((a, b), (out,), saves=saves, backward=backward)
        return out

    def copy(self, x: Value, shape: Shape | None = None) -> Value:
        """`contiguous()` or a reshape that must copy."""
        out = self.tape.value(shape or x.shape, x.itemsize, needs_grad=x.needs_grad)

        def backward(run: Backward) -> None:
            grad = run.take(out)
            if grad is not None:
                run.give(x, grad)

        self.tape.record((x,), (out,), backward=backward)
        return out

    def dropout(self, x: Value, probability: float) -> Value:
        """`native_dropout`: a result and a boolean mask, which is saved; nothing when off."""
        if not self.training or probability <= 0.0:
            return x
        out = self._fresh(x)
        mask = self.tape.value(x.shape, BOOL, needs_grad=False)

        def backward(run: Backward) -> None:
            if run.take(out) is not None:
                run.give(x, run.like(x))

        self.tape.record((x,), (out, mask), saves=(mask,), backward=backward)
        return out

    def softmax(self, x: Value, itemsize: int) -> Value:
        """`softmax(x, dtype=...)`, computed at `itemsize`; saves its result."""
        out = self._fresh(x, itemsize=itemsize)

        def backward(run: Backward) -> None:
            if run.take(out) is not None:
                run.give(x, run.like(x))

        self.tape.record((x,), (out,), saves=(out,), backward=backward)
        return out

    # -- linear algebra -------------------------------------------------------------------------

    def weight(self, shape: Shape, *, trainable: bool = True) -> Value:
        """A parameter in its stored type."""
        return self.tape.parameter(shape, self.types.weight, trainable=trainable)

    def autocast_weight(self, w: Value) -> Value:
        """The weight as a matrix multiplication reads it: under autocast, a cached cast."""
        if not self.types.autocast or w.itemsize == self.types.compute:
            return w
        if id(w) not in self._casts:
            outer = self.tape.part
            self.tape.part = "autocast weight copies"
            self._casts[id(w)] = self.cast(w, self.types.compute)
            self.tape.part = outer
        return self._casts[id(w)]

    def linear(self, x: Value, width: str | int, w: Value, bias: Value | None = None) -> Value:
        """`x @ w.T (+ bias)`: saves `x` for the weight's gradient and `w` for the input's."""
        x = self._autocast_input(x)
        kernel = self.autocast_weight(w)
        shift = None if bias is None else self.autocast_weight(bias)
        grad = x.needs_grad or w.needs_grad or (bias is not None and bias.needs_grad)
        out = self.tape.value((*x.shape[:-1], width), x.itemsize, needs_grad=grad)
        saves = (*((x,) if w.needs_grad else ()), *((kernel,) if x.needs_grad else ()))

        def backward(run: Backward) -> None:
            if run.take(out) is None:
                return
            for value in (x, kernel, shift):
                if value is not None and value.needs_grad:
                    run.give(value, run.like(value))

        inputs = (x, kernel) if shift is None else (x, kernel, shift)
        self.tape.record(inputs, (out,), saves=saves, backward=backward)
        return out

    def matmul(self, a: Value, b: Value, shape: Shape) -> Value:
        """A batched product of two activations; saves both."""
        a, b = self._autocast_input(a), self._autocast_input(b)
        grad = a.needs_grad or b.needs_grad
        out = self.tape.value(shape, a.itemsize, needs_grad=grad)
        saves = (*((a,) if b.needs_grad else ()), *((b,) if a.needs_grad else ()))

        def backward(run: Backward) -> None:
            if run.take(out) is None:
                return
            for value in (a, b):
                if value.needs_grad:
                    run.give(value, run.like(value))

        self.tape.record((a, b), (out,), saves=saves, backward=backward)
        return out

    def embedding(self, rows: Shape, table: Value, width: str | int) -> Value:
        """Row look-up; the gradient of the table is dense, as large as the table."""
        out = self.tape.value((*rows, width), table.itemsize, needs_grad=table.needs_grad)

        def backward(run: Backward) -> None:
            if run.take(out) is not None:
                run.give(table, run.like(table))

        self.tape.record((table,), (out,), backward=backward)
        return out

    # -- normalisation --------------------------------------------------------------------------

    def layer_norm(self, x: Value, w: Value | None, b: Value | None) -> Value:
        """Fused layer norm; saves its input, and mean and reciprocal deviation per row in fp32.

        Autocast runs it in fp32 (torch/amp autocast op lists), so a 16-bit input is cast first.
        """
        if self.types.autocast:
            x = self.cast(x, FP32)
        out = self._fresh(x, grad=True if w is not None and w.needs_grad else None)
        rows = x.shape[:-1]
        stats = [self.tape.value(rows, FP32, needs_grad=False) for _ in range(2)]

        def backward(run: Backward) -> None:
            if run.take(out) is None:
                return
            for value in (x, w, b):
                if value is not None and value.needs_grad:
                    run.give(value, run.like(value))

        inputs = tuple(v for v in (x, w, b) if v is not None)
        self.tape.record(inputs, (out, *stats), saves=(x, *stats), backward=backward)
        return out

    # -- attention ------------------------------------------------------------------------------

    def fused_attention(
        self, q: Value, k: Value, v: Value, out_shape: Shape, lse_shape: Shape, *extra: Value
    ) -> Value:
        """Flash or memory-efficient attention: saves q, k, v, its result and the log-sum-exp."""
        q, k, v = (self._autocast_input(x) for x in (q, k, v))
        grad = q.needs_grad or k.needs_grad or v.needs_grad
        out = self.tape.value(out_shape, q.itemsize, needs_grad=grad)
        lse = self.tape.value(lse_shape, LSE, needs_grad=False)

        def backward(run: Backward) -> None:
            if run.take(out) is None:
                return
            for value in (q, k, v):
                if value.needs_grad:
                    run.give(value, run.like(value))

        self.tape.record(
            (q, k, v, *extra), (out, lse), saves=(q, k, v, out, lse, *extra), backward=backward
        )
        return out

    # -- helpers --------------------------------------------------------------------------------

    def custom(
        self,
        inputs: tuple[Value, ...],
        out: Value,
        *,
        saves: tuple[Value, ...] = (),
        backward: Callable[[Backward], None],
    ) -> Value:
        """An operator whose rule the caller writes."""
        self.tape.record(inputs, (out,), saves=saves, backward=backward)
        return out

    def _autocast_input(self, x: Value) -> Value:
        return self.cast(x, self.types.compute) if self.types.autocast else x

    def _fresh(
        self,
        x: Value,
        *,
        itemsize: int | None = None,
        of: tuple[Value, ...] = (),
        grad: bool | None = None,
    ) -> Value:
        needs = any(v.needs_grad for v in of) if of else x.needs_grad
        return self.tape.value(
            x.shape, itemsize or x.itemsize, needs_grad=needs if grad is None else grad or needs
        )
