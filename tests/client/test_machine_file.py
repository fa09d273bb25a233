"""Machine files, and the commands about what a catalog asks for and owned machines are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sizewright_client.cli.app import app
from sizewright_client.machine_file import load_machines
from sizewright_client.problems import RequestFileError

RUNNER = CliRunner()


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_machine_is_described_with_units_and_dollars(tmp_path: Path) -> None:
    (machine,) = load_machines(
        written(
            tmp_path / "lab.yaml",
            "name: lab\n"
            "vcpus: 64\n"
            "cpu_architecture: x86_64\n"
            "host_memory: {nominal: 512GiB}\n"
            "accelerators: {device: RTX-4090, count: 4}\n"
            'ownership: {purchase_price: "24000", lifetime_years: 3, power_watts: 2000,\n'
            '  electricity_per_kwh: "0.31", hosting_per_month: "50.50"}\n',
        )
    )
    assert machine.name == "machines/lab"
    assert machine.host_memory.nominal_bytes == 512 * 2**30
    owned = machine.ownership
    assert owned.purchase_price_nanos_usd == 24_000 * 10**9
    assert owned.electricity_per_kwh_nanos_usd == 310_000_000
    assert owned.hosting_per_month_nanos_usd == 50_500_000_000


def test_host_memory_alone_is_what_the_machine_is_sold_with(tmp_path: Path) -> None:
    text = "name: lab\nvcpus: 8\nhost_memory: 64GiB\n"

    (machine,) = load_machines(written(tmp_path / "lab.yaml", text))

    assert machine.host_memory.nominal_bytes == 64 * 2**30
    assert machine.host_memory.usable_bytes == 0


def test_models_alone_are_machines_of_their_own_names(tmp_path: Path) -> None:
    machines = load_machines(
        written(tmp_path / "m.yaml", "machines: [dgx-h100, {model: dgx-spark, name: desk}]\n")
    )
    assert [(m.name, m.model) for m in machines] == [
        ("machines/dgx-h100", "dgx-h100"),
        ("machines/desk", "dgx-spark"),
    ]


def test_a_list_is_as_good_as_a_mapping(tmp_path: Path) -> None:
    assert len(load_machines(written(tmp_path / "m.json", '["dgx-h100", "dgx-a100-640gb"]'))) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("machines: []", "describes no machine"),
        ("name: a\nvcpu: 4\n", "did you mean 'vcpus'"),
        ("name: a\nhost_memory: {nominal: 64 apples}\n", "64 apples"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RequestFileError, match=said):
        load_machines(written(tmp_path / "wrong.yaml", text))


def test_the_policy_is_ready_to_hand_over() -> None:
    answer = RUNNER.invoke(app, ["catalog", "iam-policy", "--placement-scores"])
    assert answer.exit_code == 0
    (statement,) = json.loads(answer.stdout)["Statement"]
    assert "ec2:GetSpotPlacementScores" in statement["Action"]
    assert all(":Describe" in a or ":Get" in a for a in statement["Action"])
    role = RUNNER.invoke(app, ["catalog", "iam-policy", "--provider", "gcp"])
    assert "compute.machineTypes.list" in json.loads(role.stdout)["includedPermissions"]


def test_a_provider_without_a_policy_is_a_usage_error() -> None:
    answer = RUNNER.invoke(app, ["catalog", "iam-policy", "--provider", "azure"])
    assert answer.exit_code == 2
    assert "known: aws, gcp" in answer.stderr


def test_a_file_of_overrides_is_checked_and_shown(tmp_path: Path) -> None:
    good = written(
        tmp_path / "prices.yaml",
        "overrides:\n"
        "- {name: edp, match: {type: p5.48xlarge, term: on-demand, region: us-east-1},\n"
        "   discount_percent: 50}\n",
    )
    answer = RUNNER.invoke(app, ["catalog", "overrides", good])
    assert answer.exit_code == 0
    assert "edp: 1 offers" in answer.stdout
    assert "$55.04 to $27.52" in answer.stdout
    bad = written(tmp_path / "bad.yaml", "overrides: [{name: a, match: {}, per_hour: x}]\n")
    answer = RUNNER.invoke(app, ["catalog", "overrides", bad])
    assert answer.exit_code == 4
    assert "overrides.0.match" in answer.stderr
    assert "overrides.0.per_hour" in answer.stderr


def test_this_machine_is_shown_with_its_disks() -> None:
    answer = RUNNER.invoke(app, ["local"])
    assert answer.exit_code == 0
    assert "usable of" in answer.stdout
    assert "disk " in answer.stdout
    whole = json.loads(RUNNER.invoke(app, ["local", "--idle", "-o", "json"]).stdout)
    assert int(whole["reading"]["hostTotalBytes"]) == int(whole["hostMemory"]["nominalBytes"])
