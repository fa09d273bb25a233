"""What a run with recurrent layers cannot do, or must say; layouts have their own checks."""

from __future__ import annotations

from collections.abc import Iterator

from sizewright_server.estimation.architecture import Architecture
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.recurrent import MAMBA
from sizewright_server.estimation.workload import Inference, Training

#: Where PEFT refuses a LoRA on the last projection (tuners_utils.py), and which methods those are.
WITHOUT_OUT_PROJECTION = ("mamba", "falcon_mamba", "nemotron_h")
LOW_RANK = ("lora", "rslora", "dora", "lora-fa", "adalora")
#: Methods that are two matrices of a rank, whatever reads the layer's weight.
PAIRED = ("lora", "rslora")
NAMES = {"mixer-out": "out_proj", "x-proj": "x_proj", "dt-proj": "dt_proj"}


def has_mamba(architecture: Architecture) -> bool:
    """Whether some layer scans."""
    return any(run.style.mixer in MAMBA for run in architecture.runs if run.role == "block")


def path_not_stated(architecture: Architecture, run: Training | Inference) -> bool:
    """Whether a run does not say if its recurrent layers run in kernels of their own."""
    stated = run.kernels.recurrence if isinstance(run, Training) else run.recurrence
    return architecture.recurrent and stated is None


def check_recurrence(architecture: Architecture, run: Training | Inference) -> None:
    """Raises UnsupportedWorkload for what recurrent layers are not lowered for, or do not run."""
    if not architecture.recurrent:
        return
    if isinstance(run, Inference):
        return
    wrong = [*_kernels(architecture, run), *_adapter(architecture, run)]
    if wrong:
        raise UnsupportedWorkload(*(Violation(f"workload.training.{f}", t) for f, t in wrong))


def _kernels(architecture: Architecture, run: Training) -> Iterator[tuple[str, str]]:
    if run.packed and run.kernels.recurrence == "eager":
        yield (
            "packed",
            "transformers refuses packed samples where recurrent layers run in torch's operators,"
            " which cannot keep them apart; set kernels.recurrence to fused",
        )
    loops = any(layers.style.mixer == "mamba" for layers in architecture.runs)
    if loops and run.kernels.recurrence != "fused" and run.kernels.compile != "none":
        yield (
            "kernels.recurrence",
            "torch.compile makes an associative scan of Mamba's loop, which is not described; "
            "say 'fused' where mamba-ssm is installed",
        )


def _read_by_weight(architecture: Architecture, run: Training) -> frozenset[str]:
    """Linear layers that a scan calls not as layers, but by their weights."""
    if not has_mamba(architecture):
        return frozenset()
    scans = any(layers.style.mixer == "mamba" for layers in architecture.runs)
    kernels = {"mixer-out", *(("x-proj",) if scans else ())}
    return frozenset({"dt-proj"} if scans else ()) | (
        frozenset() if run.kernels.recurrence == "eager" else frozenset(kernels)
    )


def _adapter(architecture: Architecture, run: Training) -> Iterator[tuple[str, str]]:
    adapter = run.adapter
    if adapter is None:
        return
    read = _read_by_weight(architecture, run) & adapter.targets
    if read and adapter.method not in PAIRED:
        names = ", ".join(sorted(NAMES[one] for one in read))
        yield (
            "adapter.targets",
            f"{architecture.model_type}'s layers read the weights of {names} themselves, beside "
            f"which {adapter.method} is not described; leave them out, or use lora or rslora",
        )
    if architecture.model_type not in WITHOUT_OUT_PROJECTION:
        return
    scans = any(run.style.mixer == "mamba" for run in architecture.runs if run.role == "block")
    if adapter.method in LOW_RANK and "mixer-out" in adapter.targets:
        others = "in_proj and x_proj" if scans else "in_proj"
        yield (
            "adapter.targets",
            f"PEFT refuses {adapter.method} on out_proj of {architecture.model_type}, which the "
            f"kernels read by its weight alone; name the layers without it, such as {others}",
        )
