"""Element-wise operators of PyTorch as the tape records them; `ops.py` has the others."""

from __future__ import annotations

from dataclasses import dataclass

from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.tape import Shape, Tape, Value
from sizewright_server.estimation.techniques import AdapterStyle
from sizewright_server.estimation.weight_formats import WeightFormat

FP32 = 4
BOOL = 1
INT64 = 8


@dataclass(frozen=True, slots=True)
class Types:
    """Bytes per element: of stored weights and of computed activations, and autocast on or off.

    Under an `adapter` the weights are frozen and what is trained has `trained` bytes. Linear
    layers' frozen weights may be `quantized`; `product` names the narrow type of their products.
    """

    weight: int
    compute: int
    autocast: bool
    adapter: AdapterStyle | None = None
    trained: int = 0
    quantized: WeightFormat | None = None
    quantized_head: bool = False
    quantized_experts: bool = False
    #: The autograd node of a quantised layer keeps its input, until the graph itself dies.
    keeps_inputs: bool = False
    product: str = ""
    #: 16 bit are fp16, which some kernels read where they read no bf16.
    float16: bool = False
    #: Runs on fake tensors: activations whose backward torch can decompose run decomposed.
    traced: bool = False

    @property
    def keeps_originals(self) -> bool:
        """PEFT trains copies of modules and keeps what they were made of (ModulesToSaveWrapper)."""
        adapter = self.adapter
        own = adapter is not None and adapter.code.startswith("transformers")
        return own and adapter is not None and adapter.method != "adapter-v2"

    def trains(self, module: str) -> bool:
        """Whether a module ("norms", "embeddings", "head" or another) is trained as a whole."""
        return self.adapter is None or module in self.adapter.trained_modules


class Pointwise:
    """Records element-wise operators on a tape under one dtype policy."""

    def __init__(self, tape: Tape, types: Types, *, training: bool) -> None:
        self.tape = tape
        tape.traced = types.traced
        self.types = types
        self.training = training

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

    def clamp(self, x: Value) -> Value:
        """`clamp` to what a look for infinite values says: saves its input."""
        sizes = [self.tape.value(x.shape, width, needs_grad=False) for width in (x.itemsize, BOOL)]
        self.tape.record((x,), tuple(sizes))
        return self.unary(x)

    def power(self, x: Value) -> Value:
        """`x.pow(n)`: saves its input; backward holds `x.pow(n - 1)`, n times it, and the product.

        Autocast runs it in fp32.
        """
        if self.types.autocast:
            x = self.cast(x, FP32)
        return self.unary(x, saves="input", scratch=2)

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
                run.give_as(value, out, grad)

        self.tape.record((a, b), (out,), backward=backward)
        return out

    def add_in_place(self, a: Value, b: Value) -> Value:
        """`a += b`: the sum is where `a` was; the gradient passes to both as it is."""
        out = Value(a.storage, a.shape, a.itemsize, a.needs_grad or b.needs_grad)

        def backward(run: Backward) -> None:
            grad = run.take(out)
            if grad is not None:
                run.give(a, grad)
                run.give(b, grad)

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
            wanted = [value for value in (a, b) if value.needs_grad]
            for value in wanted:
                full = run.new(out.shape, out.itemsize, "gradient of activations")
                run.give_as(value, out, full)

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

    def expand(self, x: Value, shape: Shape) -> Value:
        """A view that repeats a dimension of one; the gradient is added up over it."""
        out = Value(x.storage, shape, x.itemsize, x.needs_grad)

        def backward(run: Backward) -> None:
            if run.take(out) is not None:
                run.give(x, run.like(x))

        self.tape.record((x,), (out,), backward=backward)
        return out

    def reduce_copy(self, x: Value, shape: Shape) -> Value:
        """Expanded and copied; the gradient is added up over what was expanded."""
        out = self.tape.value(shape, x.itemsize, needs_grad=x.needs_grad)

        def backward(run: Backward) -> None:
            if run.take(out) is not None:
                run.give(x, run.like(x))

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

    def autocast_input(self, x: Value) -> Value:
        """A product's operand as autocast reads it."""
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
