"""What is exported is taken by the parser or schema of the tool it is for (`make test-extras`)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SFT = (ROOT / "examples" / "llama3-8b-sft.yaml").read_text(encoding="utf-8")


def exported(form: str, provider: str, folder: Path) -> str:
    """A plan on one provider, as `sizewright export` writes it."""
    file = folder / "job.yaml"
    file.write_text(SFT.replace("[aws, gcp, azure]", f"[{provider}]"), encoding="utf-8")
    command = [sys.executable, "-m", "sizewright_client", "export", str(file), "--to", form]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.filterwarnings("ignore")  # SkyPilot's own
@pytest.mark.parametrize("provider", ["aws", "gcp", "azure"])
def test_skypilot_takes_the_task(provider: str, tmp_path: Path) -> None:
    import jsonschema
    from sky.utils import schemas

    task = yaml.safe_load(exported("skypilot", provider, tmp_path))

    jsonschema.validate(task, schemas.get_task_schema())
    jsonschema.validate(task["resources"], schemas.get_resources_schema())


def test_kubernetes_takes_the_job(tmp_path: Path) -> None:
    import kubernetes_validate

    job = yaml.safe_load(exported("kubernetes", "aws", tmp_path))

    kubernetes_validate.validate(job, "1.30", strict=True)


def test_ec2_takes_the_instances_and_the_requirements(tmp_path: Path) -> None:
    import botocore.session
    from botocore.validate import validate_parameters

    model = botocore.session.get_session().get_service_model("ec2")
    run: dict[str, Any] = json.loads(exported("ec2", "aws", tmp_path))
    wanted: dict[str, Any] = json.loads(exported("ec2-requirements", "aws", tmp_path))

    validate_parameters(run, model.operation_model("RunInstances").input_shape)
    validate_parameters(wanted, model.shape_for("InstanceRequirementsRequest"))


@pytest.mark.filterwarnings("ignore")  # accelerate's own
def test_accelerate_takes_the_configuration(tmp_path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    path = tmp_path / "accelerate.yaml"
    path.write_text(exported("accelerate", "aws", tmp_path), encoding="utf-8")

    assert load_config_from_file(str(path)).num_machines >= 1
