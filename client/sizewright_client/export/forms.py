"""Every form by name."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from sizewright_client.export import launchers, machines
from sizewright_client.export.selection import Selection


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
    VLLM = "vllm"


WRITERS: dict[Form, Callable[[Selection], str]] = {
    Form.TERRAFORM: machines.terraform,
    Form.SKYPILOT: machines.skypilot,
    Form.KUBERNETES: machines.kubernetes,
    Form.EC2: machines.ec2,
    Form.EC2_REQUIREMENTS: machines.ec2_requirements,
    Form.GCLOUD: machines.gcloud,
    Form.SLURM: machines.slurm,
    Form.TORCHRUN: launchers.torchrun,
    Form.ACCELERATE: launchers.accelerate,
    Form.DEEPSPEED: launchers.deepspeed,
    Form.VLLM: launchers.vllm,
}


def written(selection: Selection, form: Form) -> str:
    """The plan in a form. Raises ExportError when the form cannot express it."""
    return WRITERS[form](selection)
