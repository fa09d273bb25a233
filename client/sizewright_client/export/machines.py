"""Forms that describe the machine alone: Terraform, EC2, gcloud."""

from __future__ import annotations

import json
import shlex
from decimal import Decimal
from typing import Any

from sizewright_catalog.providers.gcp.names import parts
from sizewright_client.export.selection import MIB, ExportError, Selection


def terraform(selection: Selection) -> str:
    """Variables as `terraform.tfvars.json`."""
    offer = selection.offer
    machine, accelerator, attached = parts(offer.instance_type.type)
    values: dict[str, Any] = {
        "name": selection.name,
        "cloud": offer.provider,
        "region": offer.region,
        "zones": list(offer.zones),
        "instance_type": machine,
        "instance_count": selection.plan.node_count,
        "spot": selection.spot,
        "gpus_per_node": selection.gpus_per_node,
        "cost_per_hour_usd": str(
            Decimal(selection.plan.cost_per_hour_nanos_usd).scaleb(-9).normalize()
        ),
    }
    if accelerator:
        values |= {"guest_accelerator_type": accelerator, "guest_accelerator_count": attached}
    return json.dumps(values, indent=2) + "\n"


def ec2(selection: Selection) -> str:
    """The input of `aws ec2 run-instances --cli-input-json`."""
    offer = selection.offer
    _only_on(selection, "aws")
    nodes = selection.plan.node_count
    values: dict[str, Any] = {
        "InstanceType": offer.instance_type.type,
        "MinCount": nodes,
        "MaxCount": nodes,
        "TagSpecifications": [
            {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": selection.name}]}
        ],
    }
    if offer.zones:
        values["Placement"] = {"AvailabilityZone": sorted(offer.zones)[0]}
    if selection.spot:
        values["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {"SpotInstanceType": "one-time"},
        }
    return json.dumps(values, indent=2) + "\n"


def ec2_requirements(selection: Selection) -> str:
    """EC2 `InstanceRequirements`: any instance type with what the workload needs."""
    _only_on(selection, "aws")
    found = selection.accelerators
    values: dict[str, Any] = {
        "VCpuCount": {"Min": min(selection.vcpus, 2 * max(selection.gpus_per_node, 1))},
        "MemoryMiB": {"Min": selection.host_bytes // MIB},
    }
    if found is None:
        values["AcceleratorCount"] = {"Max": 0}
    else:
        values["AcceleratorCount"] = {"Min": found.count, "Max": found.count}
        values["AcceleratorTypes"] = ["gpu"]
        values["AcceleratorManufacturers"] = [selection.vendor]
        values["AcceleratorTotalMemoryMiB"] = {"Min": -(-selection.gpu_bytes * found.count // MIB)}
    return json.dumps(values, indent=2) + "\n"


def gcloud(selection: Selection) -> str:
    """A `gcloud compute instances create` command."""
    offer = selection.offer
    _only_on(selection, "gcp")
    names = [f"{selection.name}-{i}" for i in range(selection.plan.node_count)]
    zone = sorted(offer.zones)[0] if offer.zones else f"{offer.region}-a"
    words = [" ".join(["gcloud compute instances create", *names])]
    machine, accelerator, attached = parts(offer.instance_type.type)
    words += [f"--machine-type={machine}", f"--zone={zone}"]
    if accelerator:
        words += [f"--accelerator=type={accelerator},count={attached}"]
    if selection.spot:
        words += ["--provisioning-model=SPOT", "--instance-termination-action=STOP"]
    if selection.accelerators is not None:
        words += ["--maintenance-policy=TERMINATE"]
    return _command(words)


def _only_on(selection: Selection, provider: str) -> None:
    if selection.offer.provider != provider:
        raise ExportError(
            f"the plan is on {selection.offer.provider}, not on {provider}; "
            f"ask with --provider {provider}"
        )


def _command(words: list[str]) -> str:
    """A shell command with one option on a line."""
    quoted = [words[0], *(shlex.quote(word) for word in words[1:])]
    return " \\\n  ".join(quoted) + "\n"
