"""A device or instance type that is asked for by name and cannot run the workload says why."""

from __future__ import annotations

from datetime import date

import pytest

from sizewright_server.engines import bundled_sizing
from sizewright_server.estimation.preparation import prepare_any
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.workload import ModelSource, Optimizer, Training, Workload
from sizewright_server.planning.plan import Constraints
from sizewright_server.planning.planner import Question, recommend


def told(constraints: Constraints) -> list[str]:
    run = Training(precision="bf16-mixed", optimizer=Optimizer("adamw"), micro_batch=1, seq_len=512)
    preset = "openai-community/gpt2"
    work = Workload(ModelSource(find_preset(preset).config, preset=preset), run)
    question = Question(prepare_any(work), constraints, 1, date(2026, 11, 24))
    notices = recommend(question, bundled_sizing().index).notices
    return [notice.message for notice in notices if notice.code == "named-cannot-run"]


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("Trainium2", "PyTorch runs on Trainium2 by AWS Neuron alone"),
        ("TPU-v5e", "PyTorch runs on TPU-v5e by PyTorch/XLA alone"),
        ("Gaudi2", "Nobody in the catalog offers Gaudi2."),
        ("M60", "M60 has compute capability below 7.0."),
    ],
)
def test_an_accelerator_that_the_framework_cannot_use_says_what_it_takes(
    device: str, words: str
) -> None:
    (message,) = told(Constraints(devices=(device,)))

    assert message.startswith(words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("trn2.48xlarge", "On the instance type trn2.48xlarge: PyTorch runs on Trainium2"),
        ("m5.large", "The instance type m5.large has no GPU."),
        ("p5e.48xlarge", "The instance type p5e.48xlarge has no price that is known."),
        ("p9.huge", "Nobody in the catalog offers an instance type p9.huge."),
    ],
)
def test_an_instance_type_that_cannot_be_had_or_used_says_why(name: str, words: str) -> None:
    (message,) = told(Constraints(instance_types=(name,)))

    assert message.startswith(words)


def test_what_can_run_is_not_told_of() -> None:
    asked = Constraints(devices=("T4", "H100-SXM"), instance_types=("g5.xlarge",))

    assert told(asked) == []
