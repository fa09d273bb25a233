"""Request files: the sugar they take, and what they say to everything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sizewright.v1 import catalog_pb2, plan_pb2, sizing_service_pb2, workload_pb2
from sizewright_client.problems import RequestFileError, UnreadableRequestFileError
from sizewright_client.request_file import RequestText, load_request, parse_request


def parsed(text: str, folder: Path | None = None) -> sizing_service_pb2.RecommendRequest:
    return parse_request(RequestText("job.yaml", text, folder or Path(), None))


def problems_of(text: str, folder: Path | None = None) -> dict[str, str]:
    with pytest.raises(RequestFileError) as caught:
        parsed(text, folder)
    return {problem.field: problem.description for problem in caught.value.problems}


def test_a_request_says_workload_constraints_and_objective() -> None:
    request = parsed(
        """
        workload:
          name: job
          model: {preset: meta-llama/Meta-Llama-3-8B}
          training: {precision: bf16-mixed, micro_batch: 1, activation_checkpointing: full}
        constraints: {providers: [aws, gcp], purchase: [on-demand, spot], max_nodes: 2}
        objective: cost-per-hour
        """
    )

    assert request.workload.model.preset == "meta-llama/Meta-Llama-3-8B"
    assert request.workload.training.activation_checkpointing == (
        workload_pb2.ACTIVATION_CHECKPOINTING_FULL
    )
    assert list(request.constraints.purchase) == [
        catalog_pb2.PURCHASE_TERM_ON_DEMAND,
        catalog_pb2.PURCHASE_TERM_SPOT,
    ]
    assert request.objective == plan_pb2.OBJECTIVE_COST_PER_HOUR


def test_disk_network_and_interruptions_are_asked_for_in_their_own_units() -> None:
    request = parsed(
        """
        workload: {name: job}
        constraints:
          min_local_disk: 2TB
          max_interruption: 10%
          min_network_gbps: 400
          fabrics: infiniband
          allow_unknown_network: true
          max_cost_per_job: "1250.50"
        machines:
          - name: machines/dgx
            local_disk: 30TB
            network: {bandwidth_gbps: 3200, fabric: infiniband}
        """
    )

    asked, (machine,) = request.constraints, request.machines
    assert asked.min_local_disk_bytes == 2 * 10**12
    assert asked.max_interruption == 0.1
    assert asked.min_network_gbps == 400
    assert list(asked.fabrics) == ["infiniband"]
    assert asked.allow_unknown_network
    assert asked.max_cost_per_job_nanos_usd == 1_250_500_000_000
    assert machine.local_disk_bytes == 30 * 10**12
    assert (machine.network.bandwidth_gbps, machine.network.fabric) == (3200, "infiniband")


def test_an_interruption_of_0_is_asked_for_and_none_is_not() -> None:
    none = parsed("workload: {name: job}\nconstraints: {max_interruption: 0}\n")
    silent = parsed("workload: {name: job}\nconstraints: {max_nodes: 1}\n")

    assert none.constraints.HasField("max_interruption")
    assert not silent.constraints.HasField("max_interruption")


def test_a_bare_workload_is_taken_as_the_workload_of_a_request() -> None:
    bare = parsed("name: job\nmodel: {preset: x}\ntraining: {micro_batch: 2}\n")
    whole = parsed("workload: {name: job, model: {preset: x}, training: {micro_batch: 2}}\n")

    assert bare == whole


def test_an_optimizer_by_its_name_alone_is_that_optimizer() -> None:
    assert parsed("training: {optimizer: adamw}").workload.training.optimizer.name == "adamw"


@pytest.mark.parametrize(
    ("written", "choice"), [("auto", "auto"), ("{auto: {}}", "auto"), ("{dp: 8}", "explicit")]
)
def test_parallelism_is_auto_or_a_mapping_of_sizes(written: str, choice: str) -> None:
    training = parsed(f"training: {{parallelism: {written}}}").workload.training

    assert training.parallelism.WhichOneof("choice") == choice


@pytest.mark.parametrize(
    ("written", "count"),
    [("8B", 8_000_000_000), ("350M", 350_000_000), ("{count: 1_000}", 1000), ("1.5e9", 1.5e9)],
)
def test_a_parameter_count_may_carry_its_decimal_unit(written: str, count: int) -> None:
    assert parsed(f"model: {{parameters: {written}}}").workload.model.parameters.count == count


@pytest.mark.parametrize(
    ("written", "nanos"),
    [
        ('"12.50"', 12_500_000_000),
        ("12.5", 12_500_000_000),
        ("$3", 3_000_000_000),
        ("0.000000001", 1),
    ],
)
def test_dollars_become_nano_dollars_exactly(written: str, nanos: int) -> None:
    request = parsed(f"constraints: {{max_cost_per_hour: {written}}}")

    assert request.constraints.max_cost_per_hour_nanos_usd == nanos


def test_a_field_named_in_nano_dollars_takes_nano_dollars() -> None:
    request = parsed("constraints: {max_cost_per_hour_nanos_usd: 12500000000}")

    assert request.constraints.max_cost_per_hour_nanos_usd == 12_500_000_000


@pytest.mark.parametrize(
    ("written", "size_bytes"),
    [
        ("nominal: 40GiB", 40 * 1024**3),
        ("nominal: 1.5 TiB", 1536 * 1024**3),
        ("nominal: 80GB", 80 * 1000**3),
        ("nominal_bytes: 40GiB", 40 * 1024**3),
        ("nominal_bytes: 1024", 1024),
    ],
)
def test_sizes_carry_their_unit(written: str, size_bytes: int) -> None:
    request = parsed(f"machines: [{{host_memory: {{{written}}}}}]")

    assert request.machines[0].host_memory.nominal_bytes == size_bytes


@pytest.mark.parametrize(
    ("written", "seconds"), [("30d", 2_592_000), ("12h", 43200), ("1d12h", 129_600), ("90s", 90)]
)
def test_spans_of_time_carry_their_unit(written: str, seconds: int) -> None:
    request = parsed(f"constraints: {{max_price_age: {written}}}")

    assert request.constraints.max_price_age.ToSeconds() == seconds


def test_a_share_may_be_in_percent() -> None:
    assert parsed("constraints: {headroom: 12.5%}").constraints.headroom == 0.125


def test_one_value_stands_for_a_list_of_one() -> None:
    assert list(parsed("constraints: {providers: aws}").constraints.providers) == ["aws"]


def test_text_stays_text_whatever_yaml_would_make_of_it() -> None:
    request = parsed(
        "workload: {name: 0x10, versions: {torch: 2.10}}\nconstraints: {regions: [no, 1e3, on]}"
    )

    assert request.workload.name == "0x10"
    assert request.workload.versions["torch"] == "2.10"
    assert list(request.constraints.regions) == ["no", "1e3", "on"]


def test_hyper_parameters_become_json_text() -> None:
    request = parsed(
        "model: {estimator: {library: scikit-learn, hyper_parameters: "
        "{n_estimators: 500, max_depth: null, bootstrap: true, criterion: gini}}}"
    )

    assert dict(request.workload.model.estimator.hyper_parameters) == {
        "n_estimators": "500",
        "max_depth": "null",
        "bootstrap": "true",
        "criterion": '"gini"',
    }


def test_a_config_file_is_read_from_beside_the_request(tmp_path: Path) -> None:
    config = '{"model_type": "llama"}'
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(config)
    (tmp_path / "job.yaml").write_text("model: {hf_config: ./model/config.json}\n")
    (tmp_path / "folder.yaml").write_text("model: {hf_config: ./model}\n")

    for name in ("job.yaml", "folder.yaml"):
        request = load_request(str(tmp_path / name))
        assert request.workload.model.hf_config.json == config


def test_a_configuration_may_stand_in_the_request_itself() -> None:
    request = parsed("model: {hf_config: {model_type: llama, hidden_size: 64, eps: 1.0e-5}}")

    assert json.loads(request.workload.model.hf_config.json) == {
        "model_type": "llama",
        "hidden_size": 64,
        "eps": 1e-5,
    }


def test_json_and_proto3_json_names_are_read_as_well(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(
        json.dumps(
            {
                "workload": {"training": {"microBatch": 2, "seqLen": "128"}},
                "constraints": {"purchase": ["PURCHASE_TERM_SPOT"], "maxPriceAge": "3600s"},
            }
        )
    )

    request = load_request(str(file))

    assert request.workload.training.micro_batch == 2
    assert request.workload.training.seq_len == 128
    assert list(request.constraints.purchase) == [catalog_pb2.PURCHASE_TERM_SPOT]
    assert request.constraints.max_price_age.seconds == 3600


def test_a_key_with_nothing_behind_it_leaves_its_field_unset() -> None:
    assert not parsed("workload: {name: x}\nconstraints:\n").HasField("constraints")


def test_every_wrong_field_is_named_at_once_with_its_line() -> None:
    text = (
        "workload:\n"
        "  modle: {preset: x}\n"
        "  training: {micro_batch: many}\n"
        "constraints: {purchase: [spott]}\n"
    )
    with pytest.raises(RequestFileError) as caught:
        parsed(text)

    assert [(problem.field, problem.line) for problem in caught.value.problems] == [
        ("workload.modle", 2),
        ("workload.training.micro_batch", 3),
        ("constraints.purchase[0]", 4),
    ]


@pytest.mark.parametrize(
    ("text", "field", "hint"),
    [
        ("training: {micro_bach: 1}", "workload.training.micro_bach", "micro_batch"),
        ("seq_len: 5\nname: x", "workload.seq_len", "workload.training"),
        ("workloda: {name: x}", "workloda", "did you mean 'workload'"),
        ("training: {micro_batch: 1.5}", "workload.training.micro_batch", "whole number"),
        ("training: {micro_batch: [1]}", "workload.training.micro_batch", "single value"),
        ("training: {micro_batch: 3000000000}", "workload.training.micro_batch", "2147483647"),
        ("dataset: {rows: 1e30}", "workload.dataset.rows", "9223372036854775807"),
        ("dataset: {rows: 1e999999999}", "workload.dataset.rows", "out of range"),
        ("training: {padded_batches: yes}", "workload.training.padded_batches", "true or false"),
        ("training: {parallelism: fast}", "workload.training.parallelism", "'auto' or a mapping"),
        ("training: [1]", "workload.training", "must be a mapping"),
        ("model: {preset: a, parameters: 8B}", "workload.model", "'preset' and 'parameters'"),
        ("training: {}\ninference: {}", "workload", "'training' and 'inference'"),
        ("name: a\nname: b", "name", "said twice"),
        ("constraints: {purchase: spott}", "constraints.purchase", "on-demand, spot"),
        ("objective: unspecified", "objective", "cost-per-hour"),
        ("constraints: {headroom: much}", "constraints.headroom", "must be a number"),
        ("constraints: {headroom: 1e999}", "constraints.headroom", "out of range"),
        ("constraints: {max_price_age: 30}", "constraints.max_price_age", "30d"),
        ("constraints: {providers: {aws: 1}}", "constraints.providers", "a list of values"),
        ("constraints: {providers: [[aws]]}", "constraints.providers[0]", "single value"),
        (
            "constraints: {max_cost_per_hour: 12 EUR}",
            "constraints.max_cost_per_hour_nanos_usd",
            "US dollars",
        ),
        (
            "constraints: {max_cost_per_hour: 0.0000000001}",
            "constraints.max_cost_per_hour_nanos_usd",
            "nine decimals",
        ),
        (
            "constraints: {max_cost_per_hour: 1, max_cost_per_hour_nanos_usd: 1}",
            "constraints",
            "cannot both be said",
        ),
        (
            "machines: [{host_memory: {usable: 64G}}]",
            "machines[0].host_memory.usable_bytes",
            "40GiB",
        ),
        ("versions: torch", "workload.versions", "mapping of names"),
        ("model: {hf_config: ./gone.json}", "workload.model.hf_config", "no such file"),
        ("model: {hf_config: ~nobody-here/x}", "workload.model.hf_config", "not known here"),
        ("model: {safetensors: ~nobody-here/x}", "workload.model.safetensors", "not known here"),
        ('{"name": "\\ud800"}', "workload.name", "Unicode"),
    ],
)
def test_a_wrong_field_is_named_with_what_would_be_right(text: str, field: str, hint: str) -> None:
    found = problems_of(text)

    assert field in found
    assert hint in found[field]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("- a\n- b\n", "must be a mapping"),
        ("just words", "must be a mapping"),
        ("a: &x 1\nb: *x\n", "anchors"),
        ("a: !!python/object:os.system x\n", "tags"),
        ("a: {b: c\n", "not valid YAML"),
        ("name: a\n---\nname: b\n", "more than one document"),
        ("[" * 5000, "nest"),
        ("{a: " * 40, "nested deeper"),
        ("? [a, b]\n: c\n", "a key must be a plain word"),
        ("a: \x07\n", "not valid YAML"),
    ],
)
def test_a_document_that_is_no_request_is_refused_as_a_whole(text: str, hint: str) -> None:
    assert hint in problems_of(text)[""]


def test_yaml_that_would_blow_up_is_refused_at_its_first_anchor() -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 10))

    assert "anchors" in problems_of(f"l0: &l0 [x]\n{levels}\n")[""]


def test_only_a_json_object_leaves_this_machine_as_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("not: json")
    (tmp_path / "list.json").write_text("[1]")

    for name in ("secret", "list.json"):
        found = problems_of(f"model: {{hf_config: ./{name}}}", tmp_path)
        assert "JSON" in found["workload.model.hf_config"]


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    for path, hint in ((tmp_path, "is a directory"), (tmp_path / "gone.yaml", "no such file")):
        with pytest.raises(UnreadableRequestFileError, match=hint):
            load_request(str(path))


def test_a_file_that_is_no_utf8_or_too_large_is_refused(tmp_path: Path) -> None:
    latin, large = tmp_path / "latin.yaml", tmp_path / "large.yaml"
    latin.write_bytes(b"name: a\nregion: S\xe3o\n")
    large.write_bytes(b"#" * (1024 * 1024 + 1))

    with pytest.raises(RequestFileError, match="line 2: is not UTF-8"):
        load_request(str(latin))
    with pytest.raises(RequestFileError, match="larger than 1024 KiB"):
        load_request(str(large))


def test_a_json_file_with_wrong_syntax_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text('{"workload":\n  {"name": }}')

    with pytest.raises(RequestFileError, match="line 2: not valid JSON"):
        load_request(str(file))


def test_a_deep_json_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text("[" * 200_000)

    with pytest.raises(RequestFileError, match=r"nested deeper|not valid JSON"):
        load_request(str(file))
