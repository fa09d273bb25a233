"""What is exported: one plan of an answer, and the workload as the plan runs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sizewright.v1 import catalog_pb2, estimate_pb2, plan_pb2, sizing_service_pb2, workload_pb2
from sizewright_client.message_builder import MessageBuilder
from sizewright_client.nodes import Entry, Mapping, Scalar
from sizewright_client.problems import Problems

MIB = 2**20
#: Leaves room in a label of DNS, of 63 letters, for the number of a node.
LONGEST_NAME = 40


class ExportError(ValueError):
    """A plan that a form cannot express, with the reason."""


@dataclass(frozen=True, slots=True)
class Selection:
    """A plan with its workload; the techniques of the plan are applied to the workload."""

    plan: plan_pb2.Recommendation
    workload: workload_pb2.Workload

    @property
    def owned(self) -> bool:
        """Whether the plan runs on an owned machine."""
        return self.plan.HasField("machine")

    @property
    def offer(self) -> catalog_pb2.Offer:
        """What is rented. Raises ExportError for an owned machine."""
        if self.owned:
            raise ExportError(
                f"{self.plan.machine.name} is an owned machine; this form describes a rented one"
            )
        return self.plan.offer

    @property
    def type_name(self) -> str:
        """The provider's own name of the instance type; "" where it sells GPUs without one.

        The catalog names what such a provider sells by the provider, the device and the term.
        """
        kind = self.offer.instance_type
        return "" if kind.type.startswith(f"{self.offer.provider}-") else kind.type

    @property
    def region(self) -> str:
        """The region; "" where the provider has none."""
        return "" if self.offer.region == "global" else self.offer.region

    @property
    def accelerators(self) -> catalog_pb2.Accelerators | None:
        """The node's accelerators; None without any, or where a fit leaves them alone."""
        source = self.plan.machine if self.owned else self.plan.offer.instance_type
        if not any(pool.pool == estimate_pb2.POOL_GPU for pool in self.plan.pools):
            return None
        return source.accelerators if source.HasField("accelerators") else None

    @property
    def vendor(self) -> str:
        """Who made the accelerators: only NVIDIA numbers compute capabilities."""
        found = self.accelerators
        return "nvidia" if found is not None and found.compute_capability else "amd"

    @property
    def vcpus(self) -> int:
        """Virtual CPUs of a node."""
        source = self.plan.machine if self.owned else self.plan.offer.instance_type
        return source.vcpus

    @property
    def host_bytes(self) -> int:
        """Host memory to ask for on each node: the high estimate, up to a whole MiB."""
        return -(-self._high_bytes(estimate_pb2.POOL_HOST) // MIB) * MIB

    @property
    def gpu_bytes(self) -> int:
        """Memory each GPU needs, by the high estimate; 0 where none is used."""
        return self._high_bytes(estimate_pb2.POOL_GPU)

    def _high_bytes(self, which: estimate_pb2.Pool.ValueType) -> int:
        return sum(pool.peak.high_bytes for pool in self.plan.pools if pool.pool == which)

    @property
    def gpus_per_node(self) -> int:
        """Ranks of a node."""
        found = self.accelerators
        return found.count if found is not None else 0

    @property
    def ranks(self) -> int:
        """Processes of the job on a node."""
        return max(self.gpus_per_node, 1)

    @property
    def engine_version(self) -> str:
        """Version of the serving engine whose rules made the estimate; "" where it is not told."""
        stated = self.workload.inference.serving.engine_version
        return stated or self.plan.estimate.serving.engine_version

    @property
    def model_name(self) -> str:
        """The model as a hub knows it, or a path to put in."""
        preset = self.workload.model.preset
        return preset or "path/to/model"

    @property
    def spot(self) -> bool:
        """Whether the offer is spare capacity."""
        return not self.owned and self.plan.offer.term == catalog_pb2.PURCHASE_TERM_SPOT

    @property
    def name(self) -> str:
        """A name that every tool accepts: lower-case letters, digits and dashes, a letter first.

        Services of Kubernetes and instances of Google Cloud start with a letter (RFC 1035).
        """
        kept = "".join(c if c.isalnum() and c.isascii() else "-" for c in self.workload.name)
        name = kept.strip("-").lower()
        if name[:1].isdigit():
            name = f"job-{name}"
        return name[:LONGEST_NAME].strip("-") or "sizewright-job"


def select(
    request: sizing_service_pb2.RecommendRequest,
    answer: sizing_service_pb2.RecommendResponse,
    rank: int,
) -> Selection:
    """The plan of a rank. Raises ExportError when the answer has no such plan."""
    count = len(answer.recommendations)
    if not 1 <= rank <= count:
        plans = "1 plan" if count == 1 else f"{count} plans"
        raise ExportError(f"the answer has {plans}; there is no number {rank}")
    plan = answer.recommendations[rank - 1]
    workload = workload_pb2.Workload()
    workload.CopyFrom(request.workload)
    for technique in plan.techniques:
        for change in technique.changes:
            _apply(workload, change)
    return Selection(plan, workload)


def _apply(workload: workload_pb2.Workload, change: plan_pb2.FieldChange) -> None:
    """Sets a field by its path in the request file, read just as the file's own value is."""
    parts = change.field.removeprefix("workload.").split(".")
    node: Mapping | Scalar = Scalar(change.after, quoted=True)
    for part in reversed(parts):
        node = Mapping((Entry(part, node),))
    problems = Problems()
    MessageBuilder(workload.DESCRIPTOR, Path(), problems).fill(workload, node, "workload")
    if problems.found:
        raise ExportError("; ".join(str(problem) for problem in problems.found))
