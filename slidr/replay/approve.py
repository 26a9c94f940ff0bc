"""The second pair of eyes: a plan that moves much money is published only after somebody else has approved it."""

from slidr.direct import Place
from slidr.errors import ConflictError, NotApprovedError
from slidr.lake import Lake
from slidr.replay.audit import Decision, Log, Plan, Who, record, require_log


def approve(lake: Lake | Place, *, plan_id: str, who: Who) -> Plan:
    """Records the approval of exactly this plan: its id is the hash of what it pins. Actors are as claimed.

    Raises NotApprovedError for the plan's own author, ConflictError for a plan that is being published or was.
    """
    plan = require_log(lake, plan_id)[1]
    record(lake, plan, lambda log: _approved(log, plan, who), who=who)
    return plan


def _approved(log: Log, plan: Plan, who: Who) -> Decision:
    if who.actor in log.authors(plan.plan_id):
        raise NotApprovedError(
            f"expected somebody else than the author to approve plan {plan.plan_id}, found {who.actor}, who made it; ask a colleague"
        )
    if log.counted(plan.plan_id)["applied"] or log.is_open(plan.plan_id):
        raise ConflictError(f"expected a plan that waits to be applied, found {plan.plan_id} begun or applied; there is nothing to approve")
    return "approve", {"plan": plan.plan_id}
