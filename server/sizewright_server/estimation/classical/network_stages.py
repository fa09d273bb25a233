"""Networks on the CPU as stages: what each saves for the backward pass and needs for a moment.

Sizes are elements per sample (float32 unless a stage says bytes); parameters are counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sizewright_server.estimation.problems import UnsupportedWorkload, Violation

F4 = 4
RGB = 3
KERNEL = 3
MODEL_FIELD = "workload.model.layers"


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the pass. `output` is the gradient's size in the backward pass.

    `saved` stays until the stage's backward pass; `transient` lives while the stage runs forward;
    `workspace` is a kernel's own in both directions, `backward_workspace` in one.
    """

    name: str
    parameters: int
    largest_parameter: int
    output: int
    saved: int
    transient: int = 0
    workspace: int = 0
    backward_workspace: int = 0


@dataclass(frozen=True, slots=True)
class Network:
    """Stages in order, the input's elements and the classes of the output."""

    kind: str
    stages: tuple[Stage, ...]
    inputs: int
    outputs: int

    @property
    def parameters(self) -> int:
        """All parameters."""
        return sum(stage.parameters for stage in self.stages)

    @property
    def largest_parameter(self) -> int:
        """The largest tensor's elements."""
        return max((stage.largest_parameter for stage in self.stages), default=0)

    @property
    def saved(self) -> int:
        """Elements saved per sample over the whole forward pass."""
        return sum(stage.saved for stage in self.stages)

    def peak_elements(self, *, training: bool) -> int:
        """Most elements per sample that live at once: a walk forward, and back in training.

        Backward: what is still saved, the gradient that came, the one that goes on, and workspace.
        """
        held, worst, before = self.inputs, 0, self.inputs
        for stage in self.stages:
            alive = max(before + max(stage.transient, stage.output), stage.transient + stage.output)
            here = stage.workspace + (stage.transient + stage.saved if training else alive)
            worst = max(worst, held + here)
            held += stage.saved if training else 0
            before = stage.output
        if not training:
            return worst
        # The network's input needs no gradient.
        arriving = [0, *(stage.output for stage in self.stages)]
        for stage, onward in zip(reversed(self.stages), reversed(arriving[:-1]), strict=True):
            here = stage.output + onward + stage.workspace + stage.backward_workspace
            worst = max(worst, held + here)
            held -= stage.saved
        return worst


def network_of(model: Mapping[str, Any], *, pool_indices: bool = True) -> Network:
    """The network of a small description: `arch` and its sizes. Raises UnsupportedWorkload.

    `pool_indices` says whether max pooling saves where its maxima were, as PyTorch does.
    """
    kind = str(model.get("arch"))
    found = _KINDS.get(kind)
    if found is None:
        words = f"must be one of {', '.join(_KINDS)}, not {kind!r}"
        raise UnsupportedWorkload(Violation(MODEL_FIELD, words))
    try:
        return found({**model, "pool_indices": pool_indices})
    except (KeyError, TypeError, ValueError) as error:
        words = f"of kind {kind!r} lacks or mistakes a size: {error}"
        raise UnsupportedWorkload(Violation(MODEL_FIELD, words)) from error


def linear(name: str, inner: int, outer: int, *, activation: bool, per: int = 1) -> Stage:
    """A dense layer over `per` positions: the activation's output is saved, by both its users."""
    out = outer * per
    kept = out if activation else 0
    return Stage(name, (inner + 1) * outer, inner * outer, out, kept, transient=out)


def _mlp(model: Mapping[str, Any]) -> Network:
    widths = [int(model["in"]), *(int(width) for width in model["hidden"])]
    stages = [
        linear(f"linear-{at}", inner, outer, activation=True)
        for at, (inner, outer) in enumerate(pairwise(widths), 1)
    ]
    classes = int(model["out"])
    stages.append(linear("head", widths[-1], classes, activation=False))
    return Network("mlp", tuple(stages), widths[0], classes)


def _cnn(model: Mapping[str, Any]) -> Network:
    """Blocks of convolution, batch norm, ReLU and 2 x 2 max pooling, then a mean and a head.

    Saved: the convolution's output (for the norm), the ReLU's output, the pool's indices (int64,
    a quarter of the positions, so half of an element each) and its output. oneDNN copies input
    and output of a convolution to its blocked layout.
    """
    channels = [RGB, *(int(width) for width in model["channels"])]
    side, classes = int(model["image"]), int(model["out"])
    indices = 2 if model["pool_indices"] else 0
    stages = []
    for at, (inner, outer) in enumerate(pairwise(channels), 1):
        area = side * side
        weights, positions = inner * outer * KERNEL * KERNEL, outer * area
        blocked = positions + (inner * area if inner > RGB else 0)
        pooled = positions // 4
        stages += [
            Stage(f"conv-{at}", weights + outer, weights, positions, positions, workspace=blocked),
            Stage(f"norm-relu-{at}", 2 * outer, outer, positions, positions, positions),
            Stage(f"pool-{at}", 0, 0, pooled, pooled * (1 + indices)),
        ]
        side //= 2
    stages.append(linear("head", channels[-1], classes, activation=False))
    return Network("cnn", tuple(stages), RGB * int(model["image"]) ** 2, classes)


def recurrent_stage(name: str, kind: str, inner: int, width: int, steps: int) -> Stage:
    """Per step: the activated gates, cell, tanh of it, state, and the stacked output.

    Backward stacks the gates' gradients of all steps beside the single ones.
    """
    gates = 4 if kind == "lstm" else 3
    weights = gates * width * (inner + width + 2)
    saved = (gates + 4 if kind == "lstm" else gates + 3) * width * steps
    largest = gates * width * max(inner, width)
    stacked = gates * width * steps
    return Stage(
        name,
        weights,
        largest,
        width * steps,
        saved,
        transient=stacked,
        backward_workspace=2 * stacked,
    )


def _recurrent(model: Mapping[str, Any]) -> Network:
    """Layers of a recurrent cell, and a head on the last step."""
    kind = str(model["arch"])
    width, steps = int(model["hidden"]), int(model["seq"])
    inner = int(model["in"])
    stages = [
        recurrent_stage(f"{kind}-{at + 1}", kind, inner if at == 0 else width, width, steps)
        for at in range(int(model.get("layers", 1)))
    ]
    classes = int(model["out"])
    stages.append(linear("head", width, classes, activation=False))
    return Network(kind, tuple(stages), inner * steps, classes)


def encoder_stage(width: int, ffn: int, heads: int, steps: int) -> Stage:
    """A layer of self-attention and a ReLU feed-forward with dropout, after the attention paper.

    Saved of width d: q, k, v packed and contiguous 6, scaled 2, attention's output 2, residual
    dropouts and noise 4, norms' inputs and outputs 4, the layer's input 1; of the feed-forward
    width: activation, noise and dropped 3; of heads x s²: softmax, noise and dropped 3.
    """
    saved = steps * (19 * width + 3 * ffn) + 3 * heads * steps * steps
    weights = 4 * width * width + 2 * width * ffn + 9 * width + ffn
    largest = max(3 * width * width, width * ffn)
    scores = heads * steps * steps
    return Stage("layer", weights, largest, steps * max(ffn, width), saved, workspace=scores)


def _encoder(model: Mapping[str, Any]) -> Network:
    """Layers of an encoder, a mean over the steps, and a head."""
    width, steps = int(model["d_model"]), int(model["seq"])
    one = encoder_stage(width, int(model["ffn"]), int(model["heads"]), steps)
    classes = int(model["out"])
    head = linear("head", width, classes, activation=False)
    layers = int(model.get("layers", 1))
    return Network("transformer", (*(one,) * layers, head), steps * width, classes)


_KINDS = {
    "mlp": _mlp,
    "cnn": _cnn,
    "lstm": _recurrent,
    "gru": _recurrent,
    "transformer": _encoder,
}
