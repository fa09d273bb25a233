"""Every form by name."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from sizewright_client.export import engines, launchers, machines, schedulers
from sizewright_client.export.accelerate import accelerate
from sizewright_client.export.deepspeed import deepspeed
from sizewright_client.export.megatron import megatron
from sizewright_client.export.selection import Selection
from sizewright_client.export.trainer import trainer


class Form(StrEnum):
    """What a plan can be written as."""

    TERRAFORM = "terraform"
    SKYPILOT = "skypilot"
    KUBERNETES = "kubernetes"
    EC2 = "ec2"
    EC2_REQUIREMENTS = "ec2-requirements"
    GCLOUD = "gcloud"
    SLURM = "slurm"
    TORCHRUN = "torchrun"
    ACCELERATE = "accelerate"
    DEEPSPEED = "deepspeed"
    TRAINER = "trainer"
    MEGATRON = "megatron"
    VLLM = "vllm"
    SGLANG = "sglang"


WRITERS: dict[Form, Callable[[Selection], str]] = {
    Form.TERRAFORM: machines.terraform,
    Form.SKYPILOT: schedulers.skypilot,
    Form.KUBERNETES: schedulers.kubernetes,
    Form.EC2: machines.ec2,
    Form.EC2_REQUIREMENTS: machines.ec2_requirements,
    Form.GCLOUD: machines.gcloud,
    Form.SLURM: schedulers.slurm,
    Form.TORCHRUN: launchers.torchrun,
    Form.ACCELERATE: accelerate,
    Form.DEEPSPEED: deepspeed,
    Form.TRAINER: trainer,
    Form.MEGATRON: megatron,
    Form.VLLM: engines.vllm,
    Form.SGLANG: engines.sglang,
}


def written(selection: Selection, form: Form) -> str:
    """The plan in a form. Raises ExportError when the form cannot express it."""
    return WRITERS[form](selection)
