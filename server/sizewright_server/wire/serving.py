"""Serving engines: an Inference message whose engine, types or settings the tape does not take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from sizewright.v1 import workload_pb2 as pb
from sizewright_server.estimation.problems import Violation
from sizewright_server.estimation.serving.caches import CACHE_TYPES
from sizewright_server.estimation.serving.quantisation import (
    PLAIN,
    scheme_of,
    scheme_of_config,
    weight_types,
)
from sizewright_server.estimation.serving.rules import parse_version
from sizewright_server.estimation.serving.run import POOLED, Adapters, ServingRun
from sizewright_server.estimation.workload import Layout, ModelSource
from sizewright_server.wire.models import MAX_BATCH, MAX_TOKENS, Count, Section, Tokens
from sizewright_server.wire.stored_files import file_type, stored_bytes
from sizewright_server.wire.violations import from_pydantic, one_of

ENGINES = ("vllm", "sglang", "transformers", "pytorch")
MAX_BYTES = 2**50

Bytes = Annotated[int, Field(ge=0, le=MAX_BYTES)]
Limit = Annotated[int, Field(ge=0, le=MAX_TOKENS)]


class ServingSection(Section):
    """`inference` of a serving engine with its settings."""

    engine: Literal["vllm", "sglang", "transformers", "pytorch"]
    batch: Count
    input_tokens: Tokens
    new_tokens: Limit
    cache: Literal["dynamic", "static", "quantised", "none"]
    logits_to_keep: Limit
    attention: Literal["eager", "sdpa", "flash-attention-2"]
    compute_type: Literal["fp32", "bf16", "fp16"]
    generation: Literal["v0", "v1"] | None
    group_size: Annotated[int, Field(ge=-1, le=65_536)]
    utilization: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    max_model_len: Limit
    max_num_seqs: Annotated[int, Field(ge=0, le=MAX_BATCH)]
    max_num_batched_tokens: Limit
    block_tokens: Annotated[int, Field(ge=0, le=65_536)]
    shared_prefix_tokens: Limit
    cache_tokens: Limit
    swap_bytes: Bytes | None
    cpu_offload_bytes: Bytes
    draft_tokens: Annotated[int, Field(ge=0, le=64)]
    decode_context_parallel: Annotated[int, Field(ge=0, le=1024)]


#: Fields of the message by the section's, where their names differ.
NAMES = {
    "utilization": "serving.gpu_memory_utilization",
    "generation": "serving.engine_generation",
    "group_size": "serving.quantisation_group_size",
    "compute_type": "serving.compute_dtype",
    "block_tokens": "serving.block_size",
    "cache_tokens": "serving.static_cache_tokens",
    "swap_bytes": "serving.swap_space_bytes",
    "draft_tokens": "serving.speculative.tokens",
    "decode_context_parallel": "serving.decode_context_parallel",
}
SETTINGS = (
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "shared_prefix_tokens",
    "cpu_offload_bytes",
)
UNSET_AT_ZERO = (
    *("group_size", "utilization", "max_model_len", "max_num_seqs"),
    *("max_num_batched_tokens", "block_tokens", "cache_tokens"),
)


def wants_serving(message: pb.Inference) -> bool:
    """Whether a message asks what only the serving estimate answers."""
    engine = message.engine or "transformers"
    if engine not in ("transformers", "pytorch") or message.HasField("serving"):
        return True
    plain = message.weight_dtype in PLAIN
    cached = message.kv_dtype in ("", message.weight_dtype)
    return not plain or not cached or message.cache == "quantised"


class ServingReader:
    """Reads an Inference message for a serving engine. `problems` collects what was wrong."""

    def __init__(self, problems: list[Violation], path: str) -> None:
        self.problems, self.path = problems, path

    def read(
        self,
        message: pb.Inference,
        source: ModelSource | None,
        model: pb.Model,
        layout: Layout | None,
        read_model: Callable[[pb.Model, str], ModelSource | None],
    ) -> ServingRun | None:
        """The run; None when anything was wrong. `read_model` reads a draft model at a path."""
        before = len(self.problems)
        settings = message.serving
        engine = message.engine or "transformers"
        if engine not in ENGINES:
            self._wrong("engine", one_of("engine", engine, ENGINES))
        weight_type = self._weight_type(message.weight_dtype, source, model)
        compute = settings.compute_dtype or (weight_type if weight_type in PLAIN else "bf16")
        kv_type = self._kv_type(message.kv_dtype or compute)
        version = self._version(settings.engine_version)
        self._settings_fit(engine, message)
        draft = None
        if settings.HasField("speculative"):
            draft = read_model(settings.speculative.draft, "inference.serving.speculative.draft")
        section = self._section(message, compute)
        if layout is not None:
            self._layout_fits(engine, layout)
        if section is None or len(self.problems) > before:
            return None
        return _run(section, message, weight_type, kv_type, version, draft, layout, model)

    def _weight_type(self, word: str, source: ModelSource | None, model: pb.Model) -> str:
        """The stored type: the word, else what the configuration or the files say."""
        if not word and source is not None:
            stated = source.config.get("quantization_config")
            found = scheme_of_config(stated) if isinstance(stated, dict) else None
            if found is not None:
                return found.name
            stored = file_type(model)
            if stored:
                return stored
        try:
            return scheme_of(word).name
        except KeyError:
            self._wrong("weight_dtype", one_of("weight type", word, weight_types()))
            return "bf16"

    def _kv_type(self, word: str) -> str:
        if word not in CACHE_TYPES:
            self._wrong("kv_dtype", one_of("cache type", word, list(CACHE_TYPES)))
        return word

    def _version(self, text: str) -> tuple[int, ...] | None:
        if not text:
            return None
        version = parse_version(text[:64])
        if version is None:
            self._wrong(
                "serving.engine_version", f"must be a version such as '0.19.0', not {text[:64]!r}"
            )
        return version

    def _settings_fit(self, engine: str, message: pb.Inference) -> None:
        """Settings that mean nothing to the engine are refused rather than ignored."""
        settings = message.serving
        if engine not in POOLED:
            for name in ("gpu_memory_utilization", "max_num_seqs", "max_num_batched_tokens"):
                if getattr(settings, name):
                    self._wrong(f"serving.{name}", f"is a setting of vllm and sglang, not {engine}")
        elif message.cache:
            self._wrong("cache", f"{engine} pages its cache; leave it out")
        if message.recurrence:
            own = f"{engine} has kernels of its own; leave it out"
            plain = (
                "is read beside plain types of weights and cache alone, without serving settings"
            )
            self._wrong("recurrence", own if engine in POOLED else f"{plain}; leave it out")
        self._vllm_alone(engine, settings)
        wanted = settings.adapters
        if settings.HasField("adapters") and not (
            0 < wanted.count <= 1024 and 0 < wanted.rank <= 4096
        ):
            self._wrong("serving.adapters", "needs a count from 1 to 1,024 and a rank to 4,096")

    def _vllm_alone(self, engine: str, settings: pb.ServingSettings) -> None:
        if engine != "vllm":
            for name, given in (
                ("engine_generation", bool(settings.engine_generation)),
                ("swap_space_bytes", settings.HasField("swap_space_bytes")),
                ("graphs_in_budget", settings.HasField("graphs_in_budget")),
                ("offline", settings.offline),
                ("decode_context_parallel", settings.decode_context_parallel > 1),
            ):
                if given:
                    self._wrong(f"serving.{name}", f"is a setting of vllm, not {engine}")

    def _layout_fits(self, engine: str, layout: Layout) -> None:
        field = "parallelism.explicit"
        if layout.zero:
            self._wrong(f"{field}.zero", "must be 0: nothing is trained")
        if layout.cp > 1:
            self._wrong(
                f"{field}.cp",
                "must be 1: ranks that share sequences are serving.decode_context_parallel of vllm",
            )
        if layout.offload != "none":
            self._wrong(f"{field}.offload", "use serving.cpu_offload_bytes for an engine")
        if layout.ep > 1 and engine not in POOLED:
            self._wrong(f"{field}.ep", f"{engine} has no expert parallelism; use 1")

    def _section(self, message: pb.Inference, compute: str) -> ServingSection | None:
        settings = message.serving
        generates = message.new_tokens > 0
        kept = 1 if generates else 0
        values: dict[str, Any] = {name: getattr(settings, name) for name in SETTINGS}
        values |= {
            "engine": message.engine or "transformers",
            "batch": message.batch,
            "input_tokens": message.input_tokens,
            "new_tokens": message.new_tokens,
            "cache": message.cache or ("dynamic" if generates else "none"),
            "logits_to_keep": (
                message.logits_to_keep if message.HasField("logits_to_keep") else kept
            ),
            "attention": message.attention or "sdpa",
            "compute_type": compute,
            "generation": settings.engine_generation or None,
            "group_size": settings.quantisation_group_size,
            "utilization": settings.gpu_memory_utilization,
            "block_tokens": settings.block_size,
            "cache_tokens": settings.static_cache_tokens,
            "swap_bytes": (
                settings.swap_space_bytes if settings.HasField("swap_space_bytes") else None
            ),
            "draft_tokens": settings.speculative.tokens,
            "decode_context_parallel": settings.decode_context_parallel,
        }
        if values["engine"] not in ENGINES:
            values["engine"] = "transformers"
        try:
            return ServingSection.model_validate(values)
        except ValidationError as error:
            for violation in from_pydantic(error, ""):
                name = violation.field.lstrip(".")
                given = NAMES.get(name, f"serving.{name}" if name in SETTINGS else name)
                self._wrong(given, violation.description)
            return None

    def _wrong(self, field: str, description: str) -> None:
        self.problems.append(Violation(f"{self.path}.inference.{field}", description))


def _run(
    section: ServingSection,
    message: pb.Inference,
    weight_type: str,
    kv_type: str,
    version: tuple[int, ...] | None,
    draft: ModelSource | None,
    layout: Layout | None,
    model: pb.Model,
) -> ServingRun:
    settings = message.serving
    values = section.model_dump()
    for name in UNSET_AT_ZERO:
        values[name] = values[name] or None
    values["decode_context_parallel"] = values["decode_context_parallel"] or 1
    wanted = settings.adapters
    return ServingRun(
        **values,
        weight_type=weight_type,
        kv_type=kv_type,
        version=version,
        offline=settings.offline,
        eager=settings.enforce_eager,
        chunked_prefill=(
            settings.chunked_prefill if settings.HasField("chunked_prefill") else None
        ),
        hybrid_cache=not settings.disable_hybrid_cache,
        skip_encoder=settings.skip_multimodal_profiling,
        attention_data_parallel=settings.data_parallel_attention,
        graphs_in_budget=(
            settings.graphs_in_budget if settings.HasField("graphs_in_budget") else None
        ),
        draft=draft,
        adapters=Adapters(wanted.count, wanted.rank) if settings.HasField("adapters") else None,
        stored_bytes=stored_bytes(model),
        layout=layout,
    )
