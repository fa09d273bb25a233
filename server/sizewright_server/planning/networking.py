"""What a plan of several nodes asks of the network between them, in words."""

from __future__ import annotations

from collections.abc import Iterator

from sizewright_catalog.values import MBPS_OF_GBPS, InstanceType, Machine, Network
from sizewright_server.estimation.memory import Notice
from sizewright_server.planning.conditions import NodeConditions
from sizewright_server.planning.kinds import node_kind
from sizewright_server.planning.plan import Choice
from sizewright_server.planning.throughput import ModelledHours, speed_of

#: A plan that waits for longer than it computes is told so.
MOSTLY_WAITING = 0.5


def network_reasons(target: InstanceType | Machine, nodes: int) -> tuple[str, ...]:
    """How the nodes of a plan reach each other; nothing for a plan of one."""
    known = target.network
    if nodes == 1:
        return ()
    if known is None:
        return ("Network: nobody says how its nodes reach each other.",)
    fabric = f" over {known.fabric}" if known.fabric else ""
    return (f"Network: {_speed(known)}{fabric} from each node to the others.",)


def _speed(known: Network) -> str:
    return "no known speed" if known.mbps is None else f"{known.mbps / MBPS_OF_GBPS:,g} Gbit/s"


def network_notices(target: InstanceType | Machine, choice: Choice) -> Iterator[Notice]:
    """What to know of the network before several nodes are started."""
    if choice.nodes == 1:
        return
    known = target.network
    if known is None or known.mbps is None:
        words = (
            "Nobody says how fast its nodes reach each other, so the time is told within a wider "
            "band; min_network_gbps leaves such plans out."
        )
        yield Notice("network-unknown", words)
    speed, kind = speed_of(choice.variant), node_kind(target, NodeConditions())
    if not isinstance(speed, ModelledHours) or isinstance(kind, str):
        return
    share = speed.waiting(choice.layout, kind)
    if share > MOSTLY_WAITING:
        words = (
            f"The network binds: by the model of time a step waits for it {share:.0%} of the time; "
            "min_network_gbps or the objective cost-per-job finds plans that do not."
        )
        yield Notice("network-binds", words)
