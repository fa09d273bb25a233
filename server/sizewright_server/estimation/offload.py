"""What leaves the GPU: which share of each state stays on it, and what the host holds instead.

Sources: deepspeed/runtime/zero (stage_1_and_2.py, stage3.py, offload_config.py: gradients follow an
offloaded optimizer, in page-locked memory), torch FSDP CPUOffload and CPUOffloadPolicy (parameters,
gradients and optimizer state together), Megatron-LM's hybrid device optimizer (a share of the fp32
parameters and states; gradients stay), torchao's CPUOffloadOptimizer beside plain PyTorch (states
on the host; gradients stay unless the backward pass drops them: optim/cpu_offload.py),
torch.autograd.graph.save_on_cpu for activations.
"""

from __future__ import annotations

from dataclasses import dataclass

from sizewright_server.estimation.layout import Layout

FSDP = ("fsdp1", "fsdp2")


@dataclass(frozen=True, slots=True)
class Placement:
    """Shares of a rank's states that stay on its GPU, from 0 to 1."""

    weights: float
    gradients: float
    optimizer: float

    @property
    def steps_on_gpu(self) -> bool:
        """Whether any of the optimizer step runs on the GPU."""
        return self.optimizer > 0


def placement(layout: Layout) -> Placement:
    """Where a layout's states live."""
    if layout.offload == "none":
        return Placement(1.0, 1.0, 1.0)
    optimizer = 1.0 - layout.offload_share
    if layout.sharding in ("megatron", "ddp"):
        return Placement(1.0, 1.0, optimizer)
    parameters = layout.offload in ("optimizer-and-parameters", "nvme-with-parameters")
    return Placement(0.0 if parameters else 1.0, 0.0, optimizer)
