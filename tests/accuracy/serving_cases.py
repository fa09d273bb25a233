"""Maps published inference and serving runs."""

from __future__ import annotations

from tests.accuracy.case import Case, Mapped, Unmapped, preset_source

from sizewright_server.estimation.workload import Inference, Layout, Workload


def map_serving(case: Case) -> Mapped:
    work = case["workload"]
    if work.get("engine") != "transformers":
        raise Unmapped(f"engine {work.get('engine')!r} is not built yet")
    dtype = work.get("weight_dtype")
    if dtype not in ("fp32", "bf16", "fp16"):
        raise Unmapped(f"weights of {dtype!r} are not built yet")
    if (work.get("gpus") or 1) > 1:
        raise Unmapped("a model split over GPUs by device map is not built yet")
    settings = work.get("settings") or {}
    prompt, new = settings.get("input_tokens"), settings.get("new_tokens") or 0
    if not prompt:
        raise Unmapped("the prompt's length is not stated")
    run = Inference(
        engine="transformers",
        weight_dtype=dtype,
        kv_dtype=dtype,
        batch=int(work.get("batch") or 1),
        input_tokens=int(prompt),
        new_tokens=int(new),
        cache="dynamic" if new else "none",
        logits_to_keep=1 if new else 0,
        layout=Layout(),
    )
    return Mapped(Workload(preset_source(work), run), work.get("gpu"), 1)
