"""Host memory of a Keras process that computes on the CPU."""

from __future__ import annotations

from sizewright_server.estimation.classical.constants import constant
from sizewright_server.estimation.classical.estimate import host_estimate
from sizewright_server.estimation.classical.network import heap_part
from sizewright_server.estimation.classical.parts import EXACT, Moment, part
from sizewright_server.estimation.keras.workload import KerasWorkload
from sizewright_server.estimation.memory import MemoryEstimate, Part
from sizewright_server.estimation.optimizers import FP32

KERAS = "Keras 3 on TensorFlow 2.21"
TORCH = "Keras 3 on torch 2.13"


def estimate_cpu(work: KerasWorkload) -> MemoryEstimate:
    """Peak of one process: loading, the input pipeline, and the steps."""
    tensorflow = work.backend == "tensorflow"
    held = (
        *process_parts(work),
        *data_parts(work),
        part("parameters", work.weight_bytes, "variables x 4 B", "", KERAS, EXACT),
    )
    key = ("tensorflow_fit" if work.training else "tensorflow_predict") if tensorflow else None
    started = held
    if key is not None:
        started = (*held, constant("process", key).part("first-function", "traced and compiled"))
    elif work.training:
        text = "torch._dynamo, which every optimizer imports"
        started = (*held, constant("process", "keras_torch_fit").part("first-function", text))
    copied = pipeline_parts(work) if tensorflow else ()
    size = work.activation_bytes
    running = (*started, *copied, *_states(work), *_activations(work), heap_part(size))
    moments = (
        Moment("load", held),
        Moment("pipeline", (*started, *copied)),
        Moment("fit" if work.training else "predict", running),
    )
    return host_estimate(moments, work.architecture, "process")


def process_parts(work: KerasWorkload) -> tuple[Part, ...]:
    """Interpreter and libraries, and the first layers."""
    if work.backend == "torch":
        text = "interpreter, torch, Keras"
        return (constant("process", "keras_torch").part("process", text),)
    return (
        constant("process", "tensorflow").part("process", "interpreter, TensorFlow, Keras"),
        constant("process", "tensorflow_model").part("first-model", "first layers"),
    )


def data_parts(work: KerasWorkload) -> tuple[Part, ...]:
    """The arrays that were given, and what a pipeline holds of its own."""
    data, made = work.dataset, []
    if work.data_bytes:
        numbers = f"{work.data_bytes:,} B"
        made.append(part("dataset", work.data_bytes, "samples x bytes", numbers, "arrays", EXACT))
    if data is not None and data.shuffle_buffer:
        one = work.network.input_elements * FP32
        rows = min(data.shuffle_buffer, data.rows or data.shuffle_buffer)
        numbers = f"{rows:,} x {one:,} B"
        source = "tf.data shuffle(buffer_size)"
        made.append(part("shuffle-buffer", rows * one, "samples x bytes", numbers, source))
    if data is not None and data.cached and not work.data_bytes:
        size = data.rows * work.network.input_elements * FP32
        numbers = f"{size:,} B"
        made.append(part("cached-samples", size, "every sample", numbers, "tf.data cache()"))
    ahead = 2 * work.batch_bytes
    source = "tf.data prefetch, torch DataLoader"
    made.append(part("batches", ahead, "2 batches ahead", f"{ahead:,} B", source))
    return tuple(made)


def pipeline_parts(work: KerasWorkload) -> tuple[Part, ...]:
    """Arrays become a constant of the data pipeline: a tensor of them, and its copy."""
    if not work.data_bytes:
        return ()
    text = "the array as a tensor, and its copy into the pipeline"
    numbers = f"2 x {work.data_bytes:,} B"
    source = f"{KERAS}: array_data_adapter.py, tf.data.Dataset.from_tensors"
    return (part("pipeline-copies", 2 * work.data_bytes, text, numbers, source, EXACT),)


def _states(work: KerasWorkload) -> tuple[Part, ...]:
    if not work.training:
        return ()
    count = work.network.trainable
    size = count * (FP32 + work.states_width)
    text = "parameters x (gradient 4 + optimizer state)"
    numbers = f"{count:,} x {FP32 + work.states_width:g} B"
    return (part("gradients-and-state", size, text, numbers, KERAS, EXACT),)


def _activations(work: KerasWorkload) -> tuple[Part, ...]:
    """Tensors of a step, and what the backend's kernels hold beside them.

    The torch backend keeps Keras' order of axes and turns every convolution's input and output;
    TensorFlow's convolutions copy to their kernels' layout on each thread.
    """
    size = work.activation_bytes
    text = "batch x elements alive at the worst moment"
    elements = size // max(1, work.batch * work.activation_width)
    numbers = f"{work.batch:,} x {elements:,} x {work.activation_width} B"
    acts = part("activations", size, text, numbers, KERAS)
    if work.backend == "torch":
        kind = "" if work.network.convolutions else "_step"
        share = constant("network", f"keras_torch{kind if work.training else '_infer'}_copies")
        return (acts, share.part("turned-copies", "share of the activations", size))
    if not work.network.convolutions:
        return (acts,)
    fixed = constant("process", "tensorflow_scratch").part("kernel-scratch", "buffers of a thread")
    share = constant("network", "tensorflow_convolution_copies")
    return (acts, fixed, share.part("blocked-copies", "share of the activations", size))
