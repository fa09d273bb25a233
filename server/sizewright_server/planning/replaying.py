"""What the search's bound leaves out and a replay of the allocator lets in.

Machines are searched with a bound that holds whatever the allocator does. A replay of one layout
takes ten milliseconds, so that it is run where more than an answer is asked for.
"""

from __future__ import annotations

from sizewright_server.estimation.memory import Notice
from sizewright_server.planning.machines import check_nodes, replayed
from sizewright_server.planning.plan import PlanningResult, worst
from sizewright_server.planning.planner import Question
from sizewright_server.planning.tight import REPLAYED, TIGHT, Tight


def replayed_notices(asked: Question, result: PlanningResult) -> tuple[Notice, ...]:
    """The notices of an answer; of a cheaper machine that is tight, what a replay says of it."""
    tight = result.tight
    if tight is None or all(notice.code != TIGHT for notice in result.notices):
        return result.notices
    if not _fits(asked, tight):
        return result.notices
    others = [notice for notice in result.notices if notice.code != TIGHT]
    return (tight.notice(REPLAYED), *others)


def _fits(asked: Question, tight: Tight) -> bool:
    """Whether it fits, replayed under the layout that is nearest to fitting."""
    constraints = asked.constraints
    choice = check_nodes(asked.prepared, tight.target, [tight.nodes], constraints).choice
    if choice is None:
        return False
    found = replayed(choice, tight.target, constraints.headroom)
    return worst(tuple(pool.verdict for pool in found.pools)) == "fits"
