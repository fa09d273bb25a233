"""The operations and bytes of a sample, by what is published of the models."""

from __future__ import annotations

import pytest

from sizewright_server.estimation.estimator import PreparedWorkload
from sizewright_server.estimation.preparation import prepare_any
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.work import Work
from sizewright_server.estimation.workload import ModelSource, Optimizer, Training, Workload


def work(preset: str, tokens: int = 4096) -> Work:
    run = Training(
        precision="bf16-mixed", optimizer=Optimizer("adamw"), micro_batch=1, seq_len=tokens
    )
    made = prepare_any(Workload(ModelSource(find_preset(preset).config, preset=preset), run))
    assert isinstance(made, PreparedWorkload)
    return made.work


@pytest.mark.parametrize(
    ("preset", "active_billions", "embedding_billions"),
    # Parameters a token meets as the models' authors state them; they count the input embedding.
    [
        ("mistralai/Mixtral-8x7B-v0.1", 12.9, 0.13),
        ("deepseek-ai/DeepSeek-V3", 37, 0.93),
        ("Qwen/Qwen3-30B-A3B", 3.3, 0.31),
        ("openai/gpt-oss-20b", 3.6, 0.0),
        ("databricks/dbrx-base", 36, 0.62),
        ("allenai/OLMoE-1B-7B-0924", 1.3, 0.1),
    ],
)
def test_of_a_mixture_the_chosen_experts_alone_work(
    preset: str, active_billions: float, embedding_billions: float
) -> None:
    found = work(preset).active_parameters / 1e9 + embedding_billions

    assert found == pytest.approx(active_billions, rel=0.03)


def test_a_token_goes_to_its_experts_in_every_layer_that_has_some() -> None:
    # 61 layers, of which the first three are dense; 8 of 256 experts, hidden 7,168.
    found = work("deepseek-ai/DeepSeek-V3")

    assert found.routed_elements == 58 * 8 * 7168
    assert found.expert_parameters == 58 * 256 * 3 * 7168 * 2048


def test_attention_grows_with_the_square_of_the_tokens_and_products_do_not() -> None:
    short, long = (work("meta-llama/Meta-Llama-3-8B", tokens) for tokens in (2048, 8192))

    assert long.attention_flops / short.attention_flops == pytest.approx(16)
    products = [one.forward_flops - one.attention_flops for one in (short, long)]
    assert products[1] / products[0] == pytest.approx(4)
