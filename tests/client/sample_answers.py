"""Answers written by hand, for what reads them: every field a page shows is set somewhere here."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sizewright.v1 import catalog_pb2, estimate_pb2, plan_pb2, sizing_service_pb2

GIB = 1024**3
_DAY = 86400
_MAY_FIRST = Timestamp(seconds=1_777_593_600)


def byte_range(low: float, best: float, high: float) -> estimate_pb2.ByteRange:
    """A range given in GiB."""
    return estimate_pb2.ByteRange(
        low_bytes=int(low * GIB), best_bytes=int(best * GIB), high_bytes=int(high * GIB)
    )


def part(name: str, best: float, formula: str, numbers: str) -> estimate_pb2.Part:
    """A part without doubt."""
    return estimate_pb2.Part(
        name=name,
        size=byte_range(best, best, best),
        formula=formula,
        numbers=numbers,
        source="torch.optim.AdamW keeps two states per parameter",
        confidence=estimate_pb2.CONFIDENCE_HIGH,
    )


def _gpu_pool() -> estimate_pb2.PoolEstimate:
    weights = part("weights", 7.48, "4 B x parameters / dp", "4 B x 8,030,261,248 / 4")
    states = part(
        "optimizer-state", 14.96, "2 x 4 B x parameters / dp", "2 x 4 B x 8,030,261,248/4"
    )
    gradients = part("gradients", 7.48, "4 B x parameters / dp", "4 B x 8,030,261,248 / 4")
    logits = part("logits", 5.87, "tokens x vocabulary x 4 B x 3", "4,096 x 128,256 x 4 B x 3")
    tiny = part("rotary-cache", 0.001, "2 x tokens x head_dim x 4 B", "2 x 4,096 x 128 x 4 B")
    return estimate_pb2.PoolEstimate(
        pool=estimate_pb2.POOL_GPU,
        scope="every rank",
        phases=[
            estimate_pb2.Phase(name="load", total=byte_range(7.4, 7.5, 7.6), parts=[weights]),
            estimate_pb2.Phase(
                name="loss",
                total=byte_range(34.9, 35.8, 36.6),
                parts=[weights, states, gradients, logits, tiny],
            ),
            estimate_pb2.Phase(
                name="optimizer-step",
                total=byte_range(29.9, 29.9, 30.4),
                parts=[weights, states, gradients],
            ),
        ],
        peak_phase="loss",
        peak=byte_range(37.1, 38.5, 40.9),
        gpu=estimate_pb2.GpuReadings(
            allocated=byte_range(34.9, 35.8, 36.6),
            reserved=byte_range(35.9, 37.2, 39.0),
            device=byte_range(37.1, 38.5, 40.9),
        ),
    )


def _host_pool() -> estimate_pb2.PoolEstimate:
    imports = part("imports", 2.1, "ranks x resident size after import", "4 x 0.53 GiB")
    loading = part("checkpoint-load", 15.0, "largest shard per rank", "4 x 3.74 GiB")
    return estimate_pb2.PoolEstimate(
        pool=estimate_pb2.POOL_HOST,
        scope="4 ranks and their loader workers",
        phases=[
            estimate_pb2.Phase(
                name="load", total=byte_range(14.2, 17.1, 22.0), parts=[imports, loading]
            ),
            estimate_pb2.Phase(name="steady", total=byte_range(7.9, 9.0, 12.0), parts=[imports]),
        ],
        peak_phase="load",
        peak=byte_range(14.2, 17.1, 22.0),
    )


def memory_estimate() -> estimate_pb2.MemoryEstimate:
    """A fine-tune of an 8 B model over four GPUs."""
    return estimate_pb2.MemoryEstimate(
        pools=[_gpu_pool(), _host_pool()],
        layout=estimate_pb2.Layout(
            gpus=4, dp=4, zero=3, tp=1, pp=1, cp=1, ep=1, implementation="fsdp2"
        ),
        ranks_per_node=4,
        parameter_count=8_030_261_248,
        trainable_parameter_count=8_030_261_248,
        architecture="llama, 32 layers, hidden 4096",
        warnings=[
            estimate_pb2.Warning(
                code="dataset-not-stated",
                message="The dataset's container is not stated; memory-mapped files are assumed, "
                "which take no memory of the job's own.",
            )
        ],
    )


def _price(nanos: int, kind: catalog_pb2.PriceKind.ValueType, days: int) -> catalog_pb2.Price:
    return catalog_pb2.Price(
        per_hour_nanos_usd=nanos,
        kind=kind,
        effective_time=_MAY_FIRST,
        age=Duration(seconds=days * _DAY),
        source="provider price list",
    )


def instance_type(
    provider: str, type_name: str, count: int, device: str
) -> catalog_pb2.InstanceType:
    """An instance type with 80 GB devices."""
    return catalog_pb2.InstanceType(
        name=f"providers/{provider}/instanceTypes/{type_name}",
        provider=provider,
        type=type_name,
        vcpus=96,
        cpu_architecture="x86_64",
        host_memory=catalog_pb2.HostMemory(
            nominal_bytes=1360 * GIB,
            usable_bytes=1339 * GIB,
            overheads=[
                catalog_pb2.Overhead(
                    name="firmware-and-hypervisor", size_bytes=21 * GIB, source="measured"
                )
            ],
        ),
        accelerators=catalog_pb2.Accelerators(
            device=device, count=count, slice=1, driver_total_bytes=int(79.2 * GIB)
        ),
    )


def _pools(
    gpu: plan_pb2.Verdict.ValueType, host: plan_pb2.Verdict.ValueType
) -> list[plan_pb2.PoolFit]:
    return [
        plan_pb2.PoolFit(
            pool=estimate_pb2.POOL_GPU,
            peak=byte_range(37.1, 38.5, 40.9),
            usable_bytes=int(79.2 * GIB),
            verdict=gpu,
        ),
        plan_pb2.PoolFit(
            pool=estimate_pb2.POOL_HOST,
            peak=byte_range(14.2, 17.1, 22.0),
            usable_bytes=1339 * GIB,
            verdict=host,
        ),
    ]


def _plan(
    rank: int, offer: catalog_pb2.Offer, nodes: int, verdict: plan_pb2.Verdict.ValueType
) -> plan_pb2.Recommendation:
    return plan_pb2.Recommendation(
        rank=rank,
        offer=offer,
        node_count=nodes,
        layout=memory_estimate().layout,
        verdict=verdict,
        pools=_pools(verdict, plan_pb2.VERDICT_FITS),
        cost_per_hour_nanos_usd=offer.price.per_hour_nanos_usd * nodes,
        reasons=["The GPU binds: 40.9 GiB at most of 79.2 GiB usable.", "Host memory is ample."],
        estimate=memory_estimate() if rank == 1 else None,
    )


def _offer(
    kind: catalog_pb2.InstanceType,
    region: str,
    term: catalog_pb2.PurchaseTerm.ValueType,
    price: catalog_pb2.Price,
) -> catalog_pb2.Offer:
    return catalog_pb2.Offer(
        name=f"providers/{kind.provider}/regions/{region}/zones/-/instanceTypes/{kind.type}/terms/x",
        provider=kind.provider,
        region=region,
        term=term,
        price=price,
        instance_type=kind,
    )


def offers() -> list[catalog_pb2.Offer]:
    """Three offers, one of them with the longest names that the clouds have."""
    gcp = instance_type("gcp", "a2-ultragpu-4g", 4, "A100-80GB-SXM")
    azure = instance_type("azure", "Standard_ND96isr_MI300X_v5_Extended", 8, "MI300X-192GB-OAM")
    aws = instance_type("aws", "p4de.24xlarge", 8, "A100-80GB-SXM")
    spot, on_demand = catalog_pb2.PURCHASE_TERM_SPOT, catalog_pb2.PURCHASE_TERM_ON_DEMAND
    return [
        _offer(gcp, "us-central1", spot, _price(5_123_400_000, catalog_pb2.PRICE_KIND_COMPOSED, 0)),
        _offer(
            aws, "us-gov-west-1", spot, _price(9_870_000_000, catalog_pb2.PRICE_KIND_ESTIMATE, 1)
        ),
        _offer(
            azure,
            "southeastasiapacific2",
            on_demand,
            _price(61_250_000_000, catalog_pb2.PRICE_KIND_LIST, 208),
        ),
    ]


def recommendation() -> sizing_service_pb2.RecommendResponse:
    """Three plans, one of them tight and one on two nodes, and what turned the others away."""
    first, second, third = offers()
    miss_type = instance_type("aws", "g5.12xlarge", 4, "A10G-24GB")
    return sizing_service_pb2.RecommendResponse(
        recommendations=[
            _plan(1, first, 1, plan_pb2.VERDICT_FITS),
            _plan(2, second, 1, plan_pb2.VERDICT_TIGHT),
            _plan(3, third, 2, plan_pb2.VERDICT_FITS),
        ],
        rejections=[
            plan_pb2.Rejection(
                constraint="gpu-memory",
                offer_count=88_412,
                message="No layout needs less than 17.3 GiB per GPU; these have up to 16.0 GiB.",
            ),
            plan_pb2.Rejection(constraint="no-gpu", offer_count=7, message="They have no GPU."),
        ],
        nearest_miss=plan_pb2.NearestMiss(
            offer=_offer(miss_type, "us-east-1", catalog_pb2.PURCHASE_TERM_SPOT, first.price),
            node_count=1,
            layout=memory_estimate().layout,
            pools=_pools(plan_pb2.VERDICT_NO, plan_pb2.VERDICT_FITS),
            missing_bytes=int(1.7 * GIB),
            message="g5.12xlarge lacks 1.7 GiB per GPU: 40.9 GiB needed, 22.0 GiB usable.",
        ),
        catalog=catalog_pb2.CatalogVersion(
            version="3f9c2b7d81aa44e0", build_time=_MAY_FIRST, oldest_price_time=_MAY_FIRST
        ),
        considered_offer_count=97_123,
        fitting_offer_count=3,
    )


def nothing_fits() -> sizing_service_pb2.RecommendResponse:
    """The same answer with no plan in it."""
    answer = recommendation()
    answer.ClearField("recommendations")
    answer.fitting_offer_count = 0
    return answer


def check_answer(verdict: plan_pb2.Verdict.ValueType) -> sizing_service_pb2.CheckFitResponse:
    """A check with that verdict on the GPU."""
    return sizing_service_pb2.CheckFitResponse(
        verdict=verdict,
        pools=_pools(verdict, plan_pb2.VERDICT_FITS),
        estimate=memory_estimate(),
        reasons=["The GPU binds: 40.9 GiB at most of 79.2 GiB usable."],
    )
