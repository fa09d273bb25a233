"""The operators of PyTorch as the tape records them: what each makes, saves and needs backward.

Each method mirrors one entry of PyTorch 2.13's `tools/autograd/derivatives.yaml` (which tensors
are saved, which gradients are made) and the CUDA kernel's own buffers. Checked against traces of
the real code under fake CUDA tensors (`tests/accuracy`).
"""

from __future__ import annotations

from collections.abc import Iterable

from sizewright_server.estimation.adapters import adapted_linear
from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.pointwise import BOOL, FP32, INT64, Pointwise, Types
from sizewright_server.estimation.tape import Shape, Tape, Value

__all__ = ["BOOL", "FP32", "INT64", "Ops", "Types"]

#: cudnn/flash kernels keep the log-sum-exp of a row in fp32 per head, padded to 32 rows.
LSE = FP32
#: Bytes of an 8-bit copy.
BYTE = 1


class Ops(Pointwise):
    """Records operators on a tape under one dtype policy."""

    def __init__(self, tape: Tape, types: Types, *, training: bool) -> None:
        super().__init__(tape, types, training=training)
        self._casts: dict[int, Value] = {}
        #: Parameters are those of another segment.
        self.borrows = False

    # -- linear algebra -------------------------------------------------------------------------

    def weight(self, shape: Shape, *, module: str = "", alone: bool = False) -> Value:
        """A parameter in its stored type; an adapter trains a copy of a `module`, or it `alone`."""
        trains = self.types.trains(module)
        if self.borrows:
            return self.tape.borrowed_parameter(shape, self.types.weight, trainable=trains)
        made = self.tape.parameter(shape, self.types.weight, trainable=trains)
        if trains and self.types.keeps_originals and not alone:
            self.tape.parameter(shape, self.types.weight, trainable=False).unread = True
        return made

    def adapter_weight(self, shape: Shape) -> Value:
        """A parameter that an adapter adds."""
        return self.tape.parameter(shape, self.types.trained, trainable=True)

    def autocast_weight(self, w: Value) -> Value:
        """The weight as a matrix multiplication reads it: under autocast, a cached cast.

        The cache holds casts of weights that train; others are cast for each product.
        """
        if not self.types.autocast or w.itemsize == self.types.compute:
            return w
        with self.tape.within("autocast weight copies"):
            if not (w.needs_grad or w.idle):
                return self.cast(w, self.types.compute)
            if id(w) not in self._casts:
                self._casts[id(w)] = self.cast(w, self.types.compute)
                self.tape.storages[self._casts[id(w)].storage].cached = True
            return self._casts[id(w)]

    def forget_casts(self, weights: Iterable[Value]) -> None:
        """Takes copies out of autocast's cache whose making was taken off the tape."""
        for w in weights:
            self._casts.pop(id(w), None)

    def linear(
        self,
        x: Value,
        width: str | int,
        w: Value,
        bias: Value | None = None,
        *,
        name: str = "",
    ) -> Value:
        """A linear layer called `name`, with its adapter where it has one."""
        return adapted_linear(self, x, width, w, bias, name)

    def frozen_or_whole(
        self, x: Value, width: str | int, w: Value, bias: Value | None, name: str
    ) -> Value:
        """A linear layer without its adapter, its weight dequantised where it is quantised."""
        types = self.types
        if types.product and name not in ("", "head"):
            return self.narrow_product(x, width, w, bias)
        if types.quantized is None or w.needs_grad or (name == "head" and not types.quantized_head):
            return self.product(x, width, w, bias)
        w.stored = types.quantized
        narrow = self.cast(x, types.compute)
        out = self.dequantized_product(narrow, width, w)
        return self.cast(out, x.itemsize)

    def dequantized_product(self, x: Value, width: str | int, w: Value) -> Value:
        """A product with a quantised weight: the whole matrix is made in both passes, kept in none.

        (bitsandbytes autograd MatMul4Bit; the training paths of GPTQ and AWQ kernels alike.)
        """
        types, tape = self.types, self.tape
        # Lightning Fabric quantises an fp16 copy, so that dequantised weights are cast once more.
        twice = types.adapter is not None and types.adapter.code == "litgpt"
        with tape.within("dequantised weights"):
            matrix = tape.value(w.shape, types.compute, needs_grad=False)
            made = tape.value(w.shape, types.compute, needs_grad=False) if twice else matrix
            tape.record((w,), (made,))
            tape.record((made,), (matrix,))
        out = tape.value((*x.shape[:-1], width), x.itemsize, needs_grad=x.needs_grad)
        tape.storages[out.storage].result_of = "product"

        def backward(run: Backward) -> None:
            if run.take(out) is not None:
                for _ in range(1 + twice):
                    run.new(w.shape, types.compute, "dequantised weights")
                run.give(x, run.like(x))

        kept = (x,) if types.keeps_inputs else ()
        for value in kept:
            tape.storages[value.storage].lingers = True
        tape.record((x, matrix), (out,), saves=kept, backward=backward)
        return out

    def narrow_product(self, x: Value, width: str | int, w: Value, bias: Value | None) -> Value:
        """An fp8 or narrower product of dynamically scaled copies (torchao Float8Linear).

        Input and weight are saved as they are and cast anew in the backward pass; 4-bit copies
        with their scales count as a byte too.
        """
        tape = self.tape
        x = self.autocast_input(x)
        with tape.within("narrow copies"):
            copies = [tape.value(v.shape, BYTE, needs_grad=False) for v in (x, w)]
            tape.record((x, w), tuple(copies))
        out = self.product(x, width, w, bias)
        tape.hold(*copies)
        made = tape.ops[-2].backward

        def backward(run: Backward) -> None:
            for value in (out, x, w):
                run.new(value.shape, BYTE, "narrow copies")
            if made is not None:
                made(run)

        tape.ops[-2].backward = backward if made is not None else None
        return out

    def product(
        self,
        x: Value,
        width: str | int,
        w: Value,
        bias: Value | None = None,
        *,
        shape: Shape | None = None,
    ) -> Value:
        """`x @ w.T (+ bias)`: saves `x` for the weight's gradient and `w` for the input's.

        `shape` is that of the result where it is not `x` with another width: a convolution.
        """
        x = self.autocast_input(x)
        kernel = self.autocast_weight(w)
        shift = None if bias is None else self.autocast_weight(bias)
        grad = x.needs_grad or w.needs_grad or (bias is not None and bias.needs_grad)
        out = self.tape.value(shape or (*x.shape[:-1], width), x.itemsize, needs_grad=grad)
        self.tape.storages[out.storage].result_of = "product"
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
        return self.product_of(self.autocast_input(a), self.autocast_input(b), shape)

    def product_of(self, a: Value, b: Value, shape: Shape) -> Value:
        """A batched product in the type of its inputs, whatever autocast says."""
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

    def reshard(self, x: Value, shape: Shape) -> Value:
        """Rows gathered from, or reduced to, the ranks of a tensor-parallel group.

        The gradient goes the other way, into a tensor of the input's shape.
        """
        if x.shape == shape:
            return x
        out = self.tape.value(shape, x.itemsize, needs_grad=x.needs_grad)

        def backward(run: Backward) -> None:
            if run.take(out) is not None:
                run.give(x, run.like(x))

        self.tape.record((x,), (out,), backward=backward)
        return out

    def contiguous(self, x: Value) -> Value:
        """A copy with another order of dimensions, in the type a product reads."""
        return self.copy(self.autocast_input(x))

    def embedding(
        self, rows: Shape, table: Value, width: str | int, *, index: Value | None = None
    ) -> Value:
        """Row look-up; the gradient of the table is dense, as large as the table.

        `index` are the rows' numbers where they are made for this; they are saved.
        """
        out = self.tape.value((*rows, width), table.itemsize, needs_grad=table.needs_grad)

        def backward(run: Backward) -> None:
            if run.take(out) is not None:
                run.give(table, run.like(table))

        made = () if index is None else (index,)
        self.tape.record((table, *made), (out,), saves=made, backward=backward)
        return out

    # -- normalisation --------------------------------------------------------------------------

    def layer_norm(
        self, x: Value, w: Value | None, b: Value | None, *, promotes: bool = True
    ) -> Value:
        """Fused layer norm; saves its input, and mean and reciprocal deviation per row in fp32.

        Autocast runs it in fp32 (torch/amp autocast op lists), so a 16-bit input is cast first.
        """
        if self.types.autocast:
            # Unless the model casts to 16 bit itself and switches autocast off.
            x = self.cast(x, FP32 if promotes else self.types.compute)
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
        q, k, v = (self.autocast_input(x) for x in (q, k, v))
        grad = q.needs_grad or k.needs_grad or v.needs_grad
        out = self.tape.value(out_shape, q.itemsize, needs_grad=grad)
        lse = self.tape.value(lse_shape, LSE, needs_grad=False)
        for made in (out, lse):
            self.tape.storages[made.storage].result_of = "attention"

        def backward(run: Backward) -> None:
            if run.take(out) is None:
                return
            for value in (q, k, v):
                if value.needs_grad:
                    run.give(value, run.like(value))
            for mask in extra:
                if mask.needs_grad:
                    # The gradient of a bias is made for every sample, then added up.
                    full = run.new((lse_shape[0], *mask.shape[1:]), mask.itemsize)
                    run.give(mask, run.like(mask))
                    run.free(full)

        self.tape.record(
            (q, k, v, *extra), (out, lse), saves=(q, k, v, out, lse, *extra), backward=backward
        )
        return out
