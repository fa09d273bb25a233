"""A plan in the forms that other tools take says what the plan says."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from running_server import EXAMPLES
from sizewright.v1 import plan_pb2, sizing_service_pb2, workload_pb2
from sizewright_client import SizingClient
from sizewright_client.export.forms import Form, written
from sizewright_client.export.selection import ExportError, Selection, select
from sizewright_client.request_file import load_request

SFT = (EXAMPLES / "llama3-8b-sft.yaml").read_text(encoding="utf-8")
CHAT = (EXAMPLES / "llama3-8b-chat.yaml").read_text(encoding="utf-8")
SERVED = CHAT.replace("inference:\n", "inference:\n    engine: vllm\n")
FOREST = (EXAMPLES / "sklearn-forest.yaml").read_text(encoding="utf-8")


def on(text: str, provider: str, purchase: str = "on-demand, spot") -> str:
    """The same request on one provider."""
    return text.replace("[aws, gcp, azure]", f"[{provider}]").replace(
        "[on-demand, spot]", f"[{purchase}]"
    )


def plan_of(text: str, folder: Path, rank: int = 1) -> Selection:
    """The plan the embedded engine recommends for the text of a request file."""
    file = folder / "job.yaml"
    file.write_text(text, encoding="utf-8")
    request = load_request(str(file))
    with SizingClient.embedded() as client:
        return select(request, client.recommend(request), rank)


def words_of(text: str) -> list[str]:
    """The words of a command, without the remarks above it."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return shlex.split("\n".join(lines).replace("\\\n", " "))


def test_skypilot_names_the_cloud_the_region_and_the_accelerators(tmp_path: Path) -> None:
    selection = plan_of(on(SFT, "aws", "spot"), tmp_path)

    task = yaml.safe_load(written(selection, Form.SKYPILOT))

    offer = selection.plan.offer
    assert task["num_nodes"] == selection.plan.node_count
    assert task["resources"]["infra"] == f"aws/{offer.region}"
    assert task["resources"]["instance_type"] == offer.instance_type.type
    assert task["resources"]["use_spot"] is True
    count = offer.instance_type.accelerators.count
    assert task["resources"]["accelerators"].endswith(f":{count}")


def test_a_provider_that_has_no_name_for_a_machine_is_asked_for_its_gpus(tmp_path: Path) -> None:
    selection = plan_of(SFT, tmp_path)
    offer = selection.plan.offer
    offer.provider, offer.region = "runpod", "global"
    offer.instance_type.provider = "runpod"
    offer.instance_type.type = "runpod-a100-sxm-community"
    offer.instance_type.accelerators.device = "A100-80GB-SXM"

    resources = yaml.safe_load(written(selection, Form.SKYPILOT))["resources"]
    job = yaml.safe_load(written(selection, Form.KUBERNETES))

    assert resources["infra"] == "runpod"
    assert "instance_type" not in resources
    assert resources["accelerators"].startswith("A100-80GB:")
    assert "nodeSelector" not in job["spec"]["template"]["spec"]


def test_pods_of_several_nodes_meet_at_the_first_of_them(
    tmp_path: Path,
) -> None:
    text = SFT.replace("auto\n", "{dp: 16, zero: 3, implementation: fsdp2}\n")

    selection = plan_of(text, tmp_path)
    service, job = yaml.safe_load_all(written(selection, Form.KUBERNETES))

    pod = job["spec"]["template"]["spec"]
    assert selection.plan.node_count == 2
    assert job["spec"]["completions"] == 2
    assert service["spec"]["clusterIP"] == "None"
    assert pod["subdomain"] == service["metadata"]["name"]
    name = job["metadata"]["name"]
    assert f"--rdzv-endpoint={name}-0.{name}:29500" in pod["containers"][0]["command"][-1]


def test_terraform_variables_carry_the_exact_cost(tmp_path: Path) -> None:
    selection = plan_of(SFT, tmp_path)

    values = json.loads(written(selection, Form.TERRAFORM))

    whole, _, part = values["cost_per_hour_usd"].partition(".")
    nanos = int(whole) * 10**9 + int(part.ljust(9, "0") or 0)
    assert nanos == selection.plan.cost_per_hour_nanos_usd
    assert values["instance_count"] == selection.plan.node_count


def test_kubernetes_asks_for_the_high_estimate_and_the_gpus_of_a_node(tmp_path: Path) -> None:
    selection = plan_of(SFT, tmp_path)

    job = yaml.safe_load(written(selection, Form.KUBERNETES))

    container = job["spec"]["template"]["spec"]["containers"][0]
    host = next(pool for pool in selection.plan.pools if pool.pool == 2)
    asked = int(container["resources"]["limits"]["memory"].removesuffix("Mi")) * 2**20
    assert host.peak.high_bytes <= asked < host.peak.high_bytes + 2**20
    gpus = selection.plan.offer.instance_type.accelerators.count
    assert container["resources"]["limits"]["nvidia.com/gpu"] == gpus


def test_a_fit_asks_kubernetes_for_memory_alone(tmp_path: Path) -> None:
    job = yaml.safe_load(written(plan_of(FOREST, tmp_path), Form.KUBERNETES))

    limits = job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert list(limits) == ["memory"]


def test_a_fit_starts_in_its_environment_under_every_setting_that_was_sized(
    tmp_path: Path,
) -> None:
    text = FOREST.replace("threads: 8", "threads: 8, returns_freed_memory: true")

    script = written(plan_of(text, tmp_path), Form.SLURM)

    (step,) = (line for line in script.splitlines() if line.startswith("srun "))
    assert step.startswith("srun bash -c 'OMP_NUM_THREADS=8 MALLOC_MMAP_THRESHOLD_=65536 ")
    assert step.endswith("python fit.py'")
    assert "# sized with model.estimator.class_name: RandomForestClassifier" in script
    assert "min_samples_leaf=2" in script
    assert "# sized with dataset.rows: 5000000" in script


def test_gcloud_creates_one_instance_a_node(tmp_path: Path) -> None:
    selection = plan_of(on(SFT, "gcp", "spot"), tmp_path)

    words = written(selection, Form.GCLOUD).replace("\\\n", " ").split()

    assert words[:4] == ["gcloud", "compute", "instances", "create"]
    assert f"--machine-type={selection.plan.offer.instance_type.type}" in words
    assert "--provisioning-model=SPOT" in words
    named = [word for word in words[4:] if not word.startswith("--")]
    assert len(named) == selection.plan.node_count


def test_gpus_that_are_attached_are_asked_for_beside_the_machine(tmp_path: Path) -> None:
    selection = plan_of(on(SFT, "gcp", "spot"), tmp_path)
    selection.plan.offer.instance_type.type = "n1-standard-8+nvidia-tesla-t4x2"

    words = written(selection, Form.GCLOUD).replace("\\\n", " ").split()
    values = json.loads(written(selection, Form.TERRAFORM))
    task = yaml.safe_load(written(selection, Form.SKYPILOT))

    assert "--machine-type=n1-standard-8" in words
    assert "--accelerator=type=nvidia-tesla-t4,count=2" in words
    assert values["instance_type"] == task["resources"]["instance_type"] == "n1-standard-8"
    assert values["guest_accelerator_type"] == "nvidia-tesla-t4"
    assert values["guest_accelerator_count"] == 2


def test_slurm_starts_the_launcher_once_on_each_node(tmp_path: Path) -> None:
    selection = plan_of(SFT, tmp_path)

    script = written(selection, Form.SLURM).splitlines()

    gpus = selection.plan.offer.instance_type.accelerators.count
    assert f"#SBATCH --gpus-per-node={gpus}" in script
    assert "#SBATCH --ntasks-per-node=1" in script
    assert f"#SBATCH --nodes={selection.plan.node_count}" in script
    (step,) = (line for line in script if line.startswith("srun "))
    assert f"torchrun --nnodes={selection.plan.node_count} --nproc-per-node={gpus}" in step


def ran_on_two_nodes(engine: str, folder: Path) -> list[str]:
    """What each of two nodes starts when a batch script serves over both."""
    selection = plan_of(SERVED.replace("vllm", engine), folder)
    selection.plan.node_count = selection.plan.layout.pp = 2
    (folder / "job.sh").write_text(written(selection, Form.SLURM), encoding="utf-8")
    stands_in = {
        "srun": 'for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done',
        "scontrol": "echo first; echo second",
        "sleep": ":",
    }
    stands_in |= {name: f'echo {name} "$@"' for name in ("ray", "vllm", "python", "python3")}
    for name, does in stands_in.items():
        (folder / name).write_text(f"#!/bin/bash\n{does}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    # The batch script itself runs on the first node, and is told so.
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_NODEID": "0"}
    done = subprocess.run(
        ["bash", str(folder / "job.sh")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.splitlines()


def test_each_node_of_a_batch_job_is_told_its_own_number(tmp_path: Path) -> None:
    first, second = ran_on_two_nodes("sglang", tmp_path)

    assert "--node-rank=0 --dist-init-addr=first:29500" in first
    assert "--node-rank=1 --dist-init-addr=first:29500" in second


def test_vllm_serves_on_the_first_node_once_both_are_a_ray_cluster(tmp_path: Path) -> None:
    head, waits, serves, joins = ran_on_two_nodes("vllm", tmp_path)

    assert head == "ray start --head --port=6379"
    assert waits.startswith("python3 -c")
    assert serves.startswith("vllm serve ")
    assert "--distributed-executor-backend=ray" in serves
    assert joins == "ray start --address=first:6379"


def test_launchers_repeat_the_layout_that_was_estimated(tmp_path: Path) -> None:
    selection = plan_of(SFT, tmp_path)
    layout, run = selection.plan.layout, selection.workload.training

    config = json.loads(written(selection, Form.DEEPSPEED))

    assert config["zero_optimization"]["stage"] == layout.zero
    assert config["train_micro_batch_size_per_gpu"] == run.micro_batch
    assert config["train_batch_size"] == run.micro_batch * layout.dp
    gpus = selection.plan.offer.instance_type.accelerators.count
    assert f"--nproc-per-node={gpus}" in written(selection, Form.TORCHRUN)


def test_techniques_of_the_plan_are_applied_to_what_is_launched(tmp_path: Path) -> None:
    text = SFT.replace("micro_batch: 1", "micro_batch: 8") + "techniques: [gradient-accumulation]\n"
    text = text.replace("auto\n", "{zero: 3, implementation: deepspeed}\n")

    selection = plan_of(text, tmp_path)
    config = json.loads(written(selection, Form.DEEPSPEED))

    assert [step.name for step in selection.plan.techniques] == ["gradient-accumulation"]
    assert config["train_micro_batch_size_per_gpu"] * config["gradient_accumulation_steps"] == 8
    assert config["train_micro_batch_size_per_gpu"] < 8


def test_vllm_serves_with_the_lengths_of_the_workload(tmp_path: Path) -> None:
    selection = plan_of(SERVED, tmp_path)
    run = selection.workload.inference

    words = words_of(written(selection, Form.VLLM))

    assert words[:2] == ["vllm", "serve"]
    assert f"--tensor-parallel-size={selection.plan.layout.tp}" in words
    assert f"--max-model-len={run.input_tokens + run.new_tokens}" in words


@pytest.mark.parametrize(
    ("form", "text", "words"),
    [
        (Form.EC2, on(SFT, "gcp"), "the plan is on gcp, not on aws; ask with --provider aws"),
        (Form.VLLM, SFT, "vllm serves; the workload trains or fits"),
        (Form.VLLM, CHAT, "sized for transformers, whose memory is another; set inference.engine"),
        (Form.DEEPSPEED, CHAT, "the workload does not train"),
    ],
)
def test_a_plan_a_form_cannot_express_is_refused_with_the_reason(
    form: Form, text: str, words: str, tmp_path: Path
) -> None:
    selection = plan_of(text, tmp_path)

    with pytest.raises(ExportError, match=words):
        written(selection, form)


@pytest.mark.parametrize(
    ("stated", "name"),
    [
        ("8B LoRA", "job-8b-lora"),
        ("llama 3 fine-tune on all that we have - v2", "llama-3-fine-tune-on-all-that-we-have"),
        ("70", "job-70"),
        ("--", "sizewright-job"),
    ],
)
def test_a_name_is_a_label_of_dns_whatever_the_workload_is_called(stated: str, name: str) -> None:
    work = workload_pb2.Workload(name=stated)

    assert Selection(plan_pb2.Recommendation(), work).name == name


def test_a_rank_the_answer_does_not_have_is_refused() -> None:
    request = sizing_service_pb2.RecommendRequest()

    with pytest.raises(ExportError, match="the answer has 0 plans; there is no number 3"):
        select(request, sizing_service_pb2.RecommendResponse(), 3)


def test_what_the_plan_offloads_is_offloaded_by_deepspeed_and_by_accelerate(
    tmp_path: Path,
) -> None:
    text = on(SFT, "aws").replace("max_nodes: 2", "max_nodes: 1")
    selection = plan_of(text + "techniques: [optimizer-offload]\n", tmp_path)
    selection.plan.layout.offload = "nvme-with-parameters"

    zero = json.loads(written(selection, Form.DEEPSPEED))["zero_optimization"]
    config = yaml.safe_load(written(selection, Form.ACCELERATE))["deepspeed_config"]

    assert zero["offload_optimizer"]["device"] == zero["offload_param"]["device"] == "nvme"
    assert config["offload_optimizer_device"] == config["offload_param_device"] == "nvme"
    selection.plan.layout.offload = "optimizer"
    zero = json.loads(written(selection, Form.DEEPSPEED))["zero_optimization"]
    assert zero["offload_optimizer"] == {"device": "cpu"}
    assert "offload_param" not in zero


def test_accelerate_takes_a_strategy_for_fsdp1_and_a_flag_for_fsdp2(tmp_path: Path) -> None:
    selection = plan_of(SFT, tmp_path)
    layout = selection.plan.layout
    layout.zero = 3

    layout.implementation = "fsdp1"
    first = yaml.safe_load(written(selection, Form.ACCELERATE))["fsdp_config"]
    layout.implementation = "fsdp2"
    second = yaml.safe_load(written(selection, Form.ACCELERATE))["fsdp_config"]

    assert first["fsdp_sharding_strategy"] == "FULL_SHARD"
    assert "fsdp_reshard_after_forward" not in first
    assert second["fsdp_reshard_after_forward"] is True


def test_accelerate_is_told_on_each_of_several_nodes_which_it_is_and_where_the_first(
    tmp_path: Path,
) -> None:
    selection = plan_of(SFT, tmp_path)
    selection.plan.node_count = 1
    alone = written(selection, Form.ACCELERATE)
    selection.plan.node_count = 2

    several = written(selection, Form.ACCELERATE)

    assert "--machine_rank" not in alone
    assert "--machine_rank=$NODE_RANK --main_process_ip=$HEAD_NODE" in several.splitlines()[0]


def test_vllm_is_told_the_types_of_weights_and_cache(tmp_path: Path) -> None:
    selection = plan_of(SERVED, tmp_path)
    run = selection.workload.inference
    run.weight_dtype, run.kv_dtype = "fp8", "fp8"

    words = words_of(written(selection, Form.VLLM))

    assert "--quantization=fp8" in words
    assert "--kv-cache-dtype=fp8" in words


def test_torchrun_sets_the_allocator_that_was_estimated(tmp_path: Path) -> None:
    selection = plan_of(SFT, tmp_path)
    selection.workload.training.expandable_segments = True

    command = written(selection, Form.TORCHRUN)

    assert "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True" in words_of(command)
