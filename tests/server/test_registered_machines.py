"""Machines that are registered: kept, ranked, forgotten, and only by those who may."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from running_server import example, running, target_of, wait_until
from sizewright.v1 import catalog_pb2 as pb
from sizewright_client import SizingClient
from sizewright_client.cli.app import app
from sizewright_client.errors import (
    AccessError,
    CatalogError,
    InvalidRequestError,
    UnknownNameError,
)

DOLLAR = 10**9
LAB = pb.Machine(name="machines/lab", model="dgx-h100", cost_per_hour_nanos_usd=DOLLAR)
RUNNER = CliRunner()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def kept(home: Path) -> Iterator[SizingClient]:
    """A client of a server with a home of its own."""
    with running(home=home) as server, SizingClient.connect(target_of(server)) as client:
        yield client


def names(client: SizingClient) -> list[str]:
    return [machine.name for machine in client.machines()]


def ranked(client: SizingClient) -> list[str]:
    request = example("llama3-8b-sft")
    request.constraints.providers.append("aws")
    request.max_results = 5
    plans = client.recommend(request).recommendations
    return [plan.machine.name for plan in plans if plan.HasField("machine")]


def test_a_registered_machine_is_kept_and_ranks_in_every_answer(
    kept: SizingClient, home: Path
) -> None:
    assert ranked(kept) == []
    answer = kept.register_machine(LAB)
    assert not answer.replaced
    assert answer.machine.accelerators.count == 8
    assert names(kept) == ["machines/lab"]
    wait_until(lambda: ranked(kept) == ["machines/lab"])
    with running(home=home) as again, SizingClient.connect(target_of(again)) as client:
        assert ranked(client) == ["machines/lab"]


def test_one_of_the_same_name_takes_its_place(kept: SizingClient) -> None:
    kept.register_machine(LAB)
    other = pb.Machine(name="machines/lab", model="dgx-a100-640gb")
    assert kept.register_machine(other).replaced
    assert [machine.model for machine in kept.machines()] == ["dgx-a100-640gb"]


def test_a_machine_as_it_is_listed_can_be_registered_again(kept: SizingClient) -> None:
    machine = pb.Machine(name="machines/owned", model="workstation-2x-rtx-4090", count=3)
    machine.ownership.purchase_price_nanos_usd = 9000 * DOLLAR
    machine.ownership.lifetime_years = 3
    machine.local_disk_bytes = 2 * 10**12
    machine.network.bandwidth_gbps, machine.network.fabric = 12.5, "ethernet"
    kept.register_machine(machine)
    (listed,) = kept.machines()
    assert listed.local_disk_bytes == 2 * 10**12
    assert listed.network.source == "stated by its owner"
    assert kept.register_machine(listed).machine == listed


def test_a_machine_that_is_forgotten_ranks_no_more(kept: SizingClient) -> None:
    kept.register_machine(LAB)
    kept.delete_machine("machines/lab")
    assert names(kept) == []
    wait_until(lambda: ranked(kept) == [])
    with pytest.raises(UnknownNameError, match="no machine 'machines/lab'"):
        kept.delete_machine("machines/lab")


def test_a_near_name_is_offered_for_one_that_is_not_there(kept: SizingClient) -> None:
    kept.register_machine(LAB)
    with pytest.raises(UnknownNameError, match="near: machines/lab"):
        kept.delete_machine("machines/lap")


def test_a_wrong_machine_is_refused_whole_and_nothing_is_kept(
    kept: SizingClient, home: Path
) -> None:
    wrong = pb.Machine(name="lab", model="dgx-h1", vcpus=-1)
    with pytest.raises(InvalidRequestError) as error:
        kept.register_machine(wrong)
    fields = {violation.field for violation in error.value.violations}
    assert {"machine.name", "machine.model", "machine.vcpus"} <= fields
    assert not home.exists()


def test_the_local_machine_is_of_the_moment_and_not_kept(kept: SizingClient) -> None:
    with pytest.raises(InvalidRequestError, match="a name of its own"):
        kept.register_machine(pb.Machine(name="machines/local", model="dgx-h100"))


def test_only_the_admin_token_registers_and_forgets(home: Path, tmp_path: Path) -> None:
    readers, admins = tmp_path / "readers", tmp_path / "admins"
    readers.write_text("reads-only-0123456789\n")
    admins.write_text("may-change-0123456789\n")
    with running(home=home, token_file=readers, admin_token_file=admins) as server:
        target = target_of(server)
        with SizingClient.connect(target, token="reads-only-0123456789") as reader:
            with pytest.raises(AccessError):
                reader.register_machine(LAB)
            with pytest.raises(AccessError):
                reader.delete_machine("machines/lab")
            assert names(reader) == []
        with SizingClient.connect(target, token="may-change-0123456789") as admin:
            admin.register_machine(LAB)
        with SizingClient.connect(target, token="reads-only-0123456789") as reader:
            assert names(reader) == ["machines/lab"]


def test_a_fixed_catalog_keeps_no_machines(tmp_path: Path) -> None:
    from sizewright_catalog.catalog import Catalog
    from sizewright_catalog.snapshot import write_snapshot

    catalog = Catalog.load()
    file = tmp_path / "one.npz"
    write_snapshot(file, catalog.arrays, catalog.meta)
    with running(catalog=file) as server, SizingClient.connect(target_of(server)) as client:
        assert names(client) == []
        with pytest.raises(CatalogError, match="home"):
            client.register_machine(LAB)


def test_the_library_is_listed_by_part_of_a_name(client: SizingClient) -> None:
    found = client.machine_models("dgx-h").models
    assert [model.name for model in found] == ["dgx-h100", "dgx-h200"]
    assert found[0].machine.accelerators.count == 8
    assert found[0].source


def test_prices_of_a_server_are_private_ones(home: Path, tmp_path: Path) -> None:
    from sizewright.v1 import catalog_service_pb2

    rules = tmp_path / "prices.yaml"
    rules.write_text(
        "overrides: [{name: edp, match: {type: p5.48xlarge, term: on-demand}, multiply: 0.5}]\n"
    )
    asked = catalog_service_pb2.ListOffersRequest(
        type="p5.48xlarge", region="us-east-1", terms=[pb.PURCHASE_TERM_ON_DEMAND]
    )
    with (
        running(home=home, price_overrides=rules) as server,
        SizingClient.connect(target_of(server)) as client,
    ):
        (offer,) = client.offers(asked)
    assert offer.price.per_hour_nanos_usd == 27_520_000_000
    assert offer.price.kind == pb.PRICE_KIND_OVERRIDE
    assert offer.price.source.startswith("override edp, off ")


def test_machines_are_added_listed_checked_and_removed_from_the_command_line(
    home: Path, tmp_path: Path
) -> None:
    with running(home=home) as server:
        there = ["--server", target_of(server)]
        added = RUNNER.invoke(
            app, ["machine", "add", "--model", "dgx-h100", "--name", "lab", *there]
        )
        assert added.exit_code == 0, added.stderr
        assert "registered machines/lab" in added.stderr
        listed = RUNNER.invoke(app, ["machine", "list", "-o", "csv", *there])
        assert "machines/lab,dgx-h100,1,224" in listed.stdout
        job = str(Path(__file__).parents[2] / "examples" / "llama3-8b-sft.yaml")
        for on in ("machines/lab", "dgx-h100"):
            checked = RUNNER.invoke(app, ["check", job, "--on", on, *there])
            assert checked.exit_code == 0, checked.stderr
            assert "fits" in checked.stdout
        missing = RUNNER.invoke(app, ["check", job, "--on", "machines/none", *there])
        assert missing.exit_code == 2
        removed = RUNNER.invoke(app, ["machine", "remove", "lab", *there])
        assert removed.exit_code == 0
        again = RUNNER.invoke(app, ["machine", "remove", "lab", *there])
        assert again.exit_code == 4


def test_of_a_file_with_a_wrong_machine_none_is_registered(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "machines.yaml"
    file.write_text("machines: [dgx-h100, {name: odd, model: dgx-h1}]\n")
    with running(home=home) as server:
        there = ["--server", target_of(server)]
        done = RUNNER.invoke(app, ["machine", "add", str(file), *there])
        assert done.exit_code == 4
        assert "machine.model" in done.stderr
        assert "registered" not in done.stderr
        with SizingClient.connect(target_of(server)) as client:
            assert names(client) == []


def test_a_machine_can_be_checked_without_being_kept(kept: SizingClient) -> None:
    answer = kept.register_machine(LAB, validate_only=True)
    assert answer.machine.accelerators.count == 8
    assert names(kept) == []


def test_everything_that_is_wrong_is_named_at_once(kept: SizingClient) -> None:
    machine = pb.Machine(name="lab box", vcpus=-3)
    machine.accelerators.device, machine.accelerators.count = "RTX-9999", 2
    machine.ownership.purchase_price_nanos_usd = DOLLAR
    machine.ownership.utilization = 1.3
    with pytest.raises(InvalidRequestError) as error:
        kept.register_machine(machine)
    assert {violation.field.removeprefix("machine.") for violation in error.value.violations} == {
        "name",
        "vcpus",
        "cpu_architecture",
        "host_memory.nominal_bytes",
        "accelerators.device",
        "ownership.lifetime_years",
        "ownership.utilization",
    }
