"""What plans are called on a page."""

from __future__ import annotations

from sizewright.v1 import catalog_pb2, estimate_pb2, plan_pb2

TERMS = {
    catalog_pb2.PURCHASE_TERM_ON_DEMAND: "on-demand",
    catalog_pb2.PURCHASE_TERM_SPOT: "spot",
    catalog_pb2.PURCHASE_TERM_COMMITTED: "committed",
    catalog_pb2.PURCHASE_TERM_OWNED: "owned",
}
PRICE_KINDS = {
    catalog_pb2.PRICE_KIND_ESTIMATE: "estimate",
    catalog_pb2.PRICE_KIND_COMPOSED: "composed",
    catalog_pb2.PRICE_KIND_OVERRIDE: "override",
}
VERDICTS = {
    plan_pb2.VERDICT_FITS: ("fits", "green"),
    plan_pb2.VERDICT_TIGHT: ("tight", "yellow"),
    plan_pb2.VERDICT_NO: ("does not fit", "red"),
}
POOLS = {estimate_pb2.POOL_GPU: "GPU", estimate_pb2.POOL_HOST: "host"}


def plan_name(offer: catalog_pb2.Offer, machine: catalog_pb2.Machine, owned: bool) -> str:
    """The machine of a plan: the provider's name of the type, or the owned machine's own."""
    return machine.name.removeprefix("machines/") if owned else offer.instance_type.type


def is_old(plan: plan_pb2.Recommendation) -> bool:
    """Whether the server warns of the price's age."""
    return any(warning.code == "price-old" for warning in plan.warnings)
