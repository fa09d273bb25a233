"""Forms that place a job and start it: SkyPilot, Kubernetes, Slurm."""

from __future__ import annotations

import math
import shlex
from typing import Any

import yaml

from sizewright_catalog.providers.gcp.names import parts
from sizewright_client.export.selection import MIB, ExportError, Selection
from sizewright_client.export.start import start

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
    "vast-ai": "vast",
    "verda": "verda",
    "digitalocean": "do",
}
#: The resource a device plugin offers on Kubernetes.
KUBERNETES_RESOURCES = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu"}
#: Images a pod can start with; replace them by your own.
IMAGES = {"pytorch": "pytorch/pytorch", "vllm": "vllm/vllm-openai", "sglang": "lmsysorg/sglang"}
PLAIN_IMAGE = "python:3.12"
#: Where nodes find the first one, as each scheduler tells it.
SKYPILOT_HEAD = '$(echo "$SKYPILOT_NODE_IPS" | head -n1)'
SLURM_HEAD = '$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n1)'


def skypilot(selection: Selection) -> str:
    """A SkyPilot task: `resources`, `num_nodes` and `run`."""
    offer = selection.offer
    if offer.provider not in SKYPILOT_CLOUDS:
        known = ", ".join(sorted(SKYPILOT_CLOUDS))
        raise ExportError(
            f"SkyPilot does not launch on {offer.provider}; it does on {known}: ask with --provider"
        )
    cloud = SKYPILOT_CLOUDS[offer.provider]
    found = selection.accelerators
    if not selection.type_name and found is None:
        raise ExportError(f"{offer.provider} has no name for {offer.instance_type.type}")
    resources: dict[str, Any] = {"infra": f"{cloud}/{selection.region}".rstrip("/")}
    if selection.type_name:
        resources["instance_type"] = parts(selection.type_name)[0]
    resources["use_spot"] = selection.spot
    if found is not None and found.slice >= 1:
        name = SKYPILOT_NAMES.get(found.device, found.device)
        resources["accelerators"] = f"{name}:{found.count}"
    task = {
        "name": selection.name,
        "num_nodes": selection.plan.node_count,
        "resources": resources,
        "run": start(selection, SKYPILOT_HEAD).replace("$NODE_RANK", "$SKYPILOT_NODE_RANK"),
    }
    return _yaml(task)


def kubernetes(selection: Selection) -> str:
    """A Job with a pod for each node: its resources, node selectors and command.

    Several nodes find each other through a Service, which stands before the Job.
    """
    nodes, name = selection.plan.node_count, selection.name
    spec = _pod(selection)
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "completions": nodes,
            "parallelism": nodes,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "template": {"spec": spec},
        },
    }
    if nodes == 1:
        return _yaml(job)
    spec["subdomain"] = name
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"clusterIP": "None", "selector": {"batch.kubernetes.io/job-name": name}},
    }
    return _yaml(service) + "---\n" + _yaml(job)


def _pod(selection: Selection) -> dict[str, Any]:
    name = selection.name
    resources: dict[str, dict[str, Any]] = {
        "requests": {"memory": f"{selection.host_bytes // MIB}Mi"},
        "limits": {"memory": f"{selection.host_bytes // MIB}Mi"},
    }
    found = selection.accelerators
    if found is not None:
        resources["limits"][KUBERNETES_RESOURCES[selection.vendor]] = found.count
    command = start(selection, f"{name}-0.{name}").replace("$NODE_RANK", "$JOB_COMPLETION_INDEX")
    container = {
        "name": name,
        "image": _image(selection),
        "command": ["bash", "-c", command],
        "resources": resources,
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }
    shared: dict[str, Any] = {"medium": "Memory"}
    limit = selection.workload.host.shared_memory_bytes
    if limit:
        shared["sizeLimit"] = f"{-(-limit // MIB)}Mi"
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "shm", "emptyDir": shared}],
    }
    labels = {} if selection.owned else _labels(selection)
    return {**spec, "nodeSelector": labels} if labels else spec


def _labels(selection: Selection) -> dict[str, str]:
    """What nodes of the plan are labelled with, as far as the provider has names for it."""
    labels = {
        "node.kubernetes.io/instance-type": parts(selection.type_name)[0],
        "topology.kubernetes.io/region": selection.region,
    }
    return {label: name for label, name in labels.items() if name}


def _image(selection: Selection) -> str:
    """An image with the framework, or the engine in the version that was sized."""
    work = selection.workload
    engine = work.inference.engine
    if engine in ("vllm", "sglang"):
        version = selection.engine_version
        whole = version.count(".") == 2
        return f"{IMAGES[engine]}:v{version}" if whole else IMAGES[engine]
    return IMAGES.get(work.framework, PLAIN_IMAGE)


def slurm(selection: Selection) -> str:
    """`#SBATCH` directives and the `srun` that starts the launcher once on each node."""
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={selection.name}",
        f"#SBATCH --nodes={selection.plan.node_count}",
        "#SBATCH --ntasks-per-node=1",
        f"#SBATCH --mem={selection.host_bytes // MIB}M",
    ]
    if selection.gpus_per_node:
        lines.append(f"#SBATCH --gpus-per-node={selection.gpus_per_node}")
    if selection.vcpus:
        lines.append(f"#SBATCH --cpus-per-task={selection.vcpus}")
    if selection.plan.HasField("job_hours"):
        minutes = math.ceil(60 * selection.plan.job_hours.high_hours)
        lines.append(f"#SBATCH --time={minutes}")
    command = start(selection, SLURM_HEAD).replace("$NODE_RANK", "$SLURM_NODEID")
    remarks = [line for line in command.splitlines() if line.startswith("#")]
    body = "\n".join(line for line in command.splitlines() if not line.startswith("#"))
    # srun runs a program: it takes a shell on each node to set variables for one, and to know which
    # node it is, as the batch script itself runs on the first.
    shell = "=" in body.split()[0] or "$SLURM_NODEID" in body
    step = f"srun bash -c {shlex.quote(body)}" if shell else f"srun {body}"
    return "\n".join([*lines, *remarks, step, ""])


def _yaml(value: dict[str, Any]) -> str:
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=100)
    return text


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as lines."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent)
