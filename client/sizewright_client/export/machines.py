"""Forms that describe the machine: infrastructure and schedulers."""

from __future__ import annotations

import json
import shlex
from decimal import Decimal
from typing import Any

import yaml

from sizewright.v1 import catalog_pb2
from sizewright_catalog.providers.gcp.names import parts
from sizewright_client.export.selection import MIB, ExportError, Selection

#: SkyPilot's names of accelerators, where they differ from ours (`sky show-gpus`).
SKYPILOT_NAMES = {
    "A100-40GB-SXM": "A100",
    "A100-40GB-PCIe": "A100",
    "A100-80GB-SXM": "A100-80GB",
    "A100-80GB-PCIe": "A100-80GB",
    "H100-SXM": "H100",
    "H100-PCIe": "H100",
    "H100-NVL": "H100",
    "H200-SXM": "H200",
    "H200-NVL": "H200",
    "V100-16GB": "V100",
    "V100-32GB": "V100-32GB",
    "RTX-A4000": "RTXA4000",
    "RTX-A5000": "RTXA5000",
    "RTX-A6000": "RTXA6000",
    "RTX-6000-Ada": "RTX6000-Ada",
    "RTX-3090": "RTX3090",
    "RTX-4090": "RTX4090",
    "RTX-5090": "RTX5090",
}
#: Clouds SkyPilot launches on, by our names.
SKYPILOT_CLOUDS = {
    "aws": "aws",
    "gcp": "gcp",
    "azure": "azure",
    "lambda": "lambda",
    "runpod": "runpod",
    "nebius": "nebius",
    "oci": "oci",
    "vast": "vast",
    "fluidstack": "fluidstack",
    "cudo": "cudo",
    "paperspace": "paperspace",
}
#: The resource a device plugin offers on Kubernetes.
KUBERNETES_RESOURCES = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu"}
#: An image a pod can start with; replace it by your own.
IMAGES = {"pytorch": "pytorch/pytorch"}
PLAIN_IMAGE = "python:3.12"


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


def skypilot(selection: Selection) -> str:
    """A SkyPilot task's `resources` and `num_nodes`."""
    offer = selection.offer
    if offer.provider not in SKYPILOT_CLOUDS:
        known = ", ".join(sorted(SKYPILOT_CLOUDS))
        raise ExportError(f"SkyPilot does not launch on {offer.provider}; it does on {known}")
    resources: dict[str, Any] = {
        "infra": f"{SKYPILOT_CLOUDS[offer.provider]}/{offer.region}",
        "instance_type": parts(offer.instance_type.type)[0],
        "use_spot": selection.spot,
    }
    found = selection.accelerators
    if found is not None and found.slice >= 1:
        name = SKYPILOT_NAMES.get(found.device, found.device)
        resources["accelerators"] = f"{name}:{found.count}"
    task = {
        "name": selection.name,
        "num_nodes": selection.plan.node_count,
        "resources": resources,
    }
    return _yaml(task)


def kubernetes(selection: Selection) -> str:
    """A Pod (a Job of several for several nodes) with resources and node selectors."""
    resources: dict[str, dict[str, Any]] = {
        "requests": {"memory": f"{selection.host_bytes // MIB}Mi"},
        "limits": {"memory": f"{selection.host_bytes // MIB}Mi"},
    }
    found = selection.accelerators
    if found is not None:
        resources["limits"][KUBERNETES_RESOURCES[_vendor(found)]] = found.count
    container = {
        "name": selection.name,
        "image": IMAGES.get(selection.workload.framework, PLAIN_IMAGE),
        "resources": resources,
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
    }
    if not selection.owned:
        spec["nodeSelector"] = {
            "node.kubernetes.io/instance-type": parts(selection.offer.instance_type.type)[0],
            "topology.kubernetes.io/region": selection.offer.region,
        }
    nodes = selection.plan.node_count
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": selection.name},
        "spec": {
            "completions": nodes,
            "parallelism": nodes,
            "completionMode": "Indexed",
            "template": {"spec": spec},
        },
    }
    return _yaml(job)


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
        values["AcceleratorManufacturers"] = [_vendor(found)]
        values["AcceleratorTotalMemoryMiB"] = {"Min": -(-selection.gpu_bytes * found.count // MIB)}
    return json.dumps(values, indent=2) + "\n"


def gcloud(selection: Selection) -> str:
    """A `gcloud compute instances create` command."""
    offer = selection.offer
    _only_on(selection, "gcp")
    names = [f"{selection.name}-{i}" for i in range(selection.plan.node_count)]
    zone = sorted(offer.zones)[0] if offer.zones else f"{offer.region}-a"
    words = ["gcloud", "compute", "instances", "create", *names]
    machine, accelerator, attached = parts(offer.instance_type.type)
    words += [f"--machine-type={machine}", f"--zone={zone}"]
    if accelerator:
        words += [f"--accelerator=type={accelerator},count={attached}"]
    if selection.spot:
        words += ["--provisioning-model=SPOT", "--instance-termination-action=STOP"]
    if selection.accelerators is not None:
        words += ["--maintenance-policy=TERMINATE"]
    return _command(words)


def slurm(selection: Selection) -> str:
    """`#SBATCH` directives and the `srun` that starts one task per GPU."""
    nodes, ranks = selection.plan.node_count, max(selection.gpus_per_node, 1)
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={selection.name}",
        f"#SBATCH --nodes={nodes}",
        f"#SBATCH --ntasks-per-node={ranks}",
        f"#SBATCH --mem={selection.host_bytes // MIB}M",
    ]
    if selection.gpus_per_node:
        lines.append(f"#SBATCH --gpus-per-node={selection.gpus_per_node}")
    if selection.vcpus:
        lines.append(f"#SBATCH --cpus-per-task={max(selection.vcpus // ranks, 1)}")
    return "\n".join([*lines, "srun python train.py", ""])


def _vendor(found: catalog_pb2.Accelerators) -> str:
    """Who made the accelerators: only NVIDIA numbers compute capabilities."""
    return "nvidia" if found.compute_capability else "amd"


def _only_on(selection: Selection, provider: str) -> None:
    if selection.offer.provider != provider:
        raise ExportError(
            f"the plan is on {selection.offer.provider}, not on {provider}; "
            f"ask with --provider {provider}"
        )


def _yaml(value: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False)
    return text


def _command(words: list[str]) -> str:
    """A shell command with one option on a line."""
    quoted = [shlex.quote(word) for word in words]
    return " \\\n  ".join(quoted) + "\n"
