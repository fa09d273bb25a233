"""Terraform variables and gcloud flags, held against their languages and the API they are of."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import hcl2
import pytest
from google.cloud import compute_v1

from running_server import EXAMPLES
from sizewright_client import SizingClient
from sizewright_client.export.forms import Form, written
from sizewright_client.export.selection import Selection, select
from sizewright_client.request_file import load_request

VARIABLES = EXAMPLES / "terraform" / "variables.tf"
TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "number": (int, float),
    "bool": bool,
    "list(string)": list,
}
#: What Compute Engine takes for the name of a resource (RFC 1035).
RESOURCE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


def plan_of(name: str, folder: Path, provider: str, purchase: str) -> Selection:
    text = (EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^constraints:.*(\n  .*)*\n?", "", text)
    file = folder / "job.yaml"
    lines = f"constraints: {{providers: [{provider}], purchase: [{purchase}]}}\n"
    file.write_text(text + lines, encoding="utf-8")
    request = load_request(str(file))
    with SizingClient.embedded() as client:
        return select(request, client.recommend(request), 1)


def declared() -> dict[str, dict[str, Any]]:
    """The variables of the example by name, as HCL's grammar has them."""
    parsed = hcl2.loads(VARIABLES.read_text(encoding="utf-8"))
    blocks: list[dict[str, Any]] = parsed["variable"]
    return {name.strip('"'): body for block in blocks for name, body in block.items()}


def flags(command: str) -> dict[str, str]:
    """The options of a command."""
    words = shlex.split(command.replace("\\\n", " "))
    pairs = (word.removeprefix("--").split("=", 1) for word in words if word.startswith("--"))
    return dict(pairs)


@pytest.mark.parametrize(
    ("name", "provider", "purchase"),
    [
        ("llama3-8b-sft", "aws", "on-demand"),
        ("llama3-8b-sft", "gcp", "spot"),
        ("sklearn-forest", "azure", "on-demand"),
        ("llama3-8b-qlora", "runpod", "on-demand"),
    ],
)
def test_every_terraform_variable_is_declared_with_the_type_it_has(
    name: str, provider: str, purchase: str, tmp_path: Path
) -> None:
    selection = plan_of(name, tmp_path, provider, purchase)
    values: dict[str, Any] = json.loads(written(selection, Form.TERRAFORM))
    known = declared()

    assert values.keys() <= known.keys()
    for variable, body in known.items():
        kind = str(body["type"]).strip('"${}')
        if variable in values:
            assert isinstance(values[variable], TYPES[kind]), variable
            assert kind == "bool" or not isinstance(values[variable], bool), variable
        else:
            assert "default" in body, variable


def test_attached_gpus_are_declared_too(tmp_path: Path) -> None:
    selection = plan_of("llama3-8b-qlora", tmp_path, "gcp", "spot")
    selection.plan.offer.instance_type.type = "n1-standard-8+nvidia-tesla-t4x2"

    values: dict[str, Any] = json.loads(written(selection, Form.TERRAFORM))

    assert values.keys() == declared().keys()


@pytest.mark.parametrize("purchase", ["spot", "on-demand"])
def test_gcloud_s_flags_have_values_that_the_compute_api_knows(
    purchase: str, tmp_path: Path
) -> None:
    selection = plan_of("llama3-8b-qlora", tmp_path, "gcp", purchase)
    command = written(selection, Form.GCLOUD)
    given = flags(command)

    scheduling = compute_v1.Scheduling
    assert given["maintenance-policy"] in scheduling.OnHostMaintenance.__members__
    assert ("provisioning-model" in given) is (purchase == "spot")
    if purchase == "spot":
        assert given["provisioning-model"] in scheduling.ProvisioningModel.__members__
        action = given["instance-termination-action"]
        assert action in scheduling.InstanceTerminationAction.__members__
    assert given["zone"] in selection.plan.offer.zones
    names = [w for w in shlex.split(command.replace("\\\n", " "))[4:] if not w.startswith("--")]
    assert all(RESOURCE_NAME.fullmatch(name) for name in names)
