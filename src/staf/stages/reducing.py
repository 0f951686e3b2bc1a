"""What a smaller set of experts costs a task, as loss on its adaptation examples."""

from __future__ import annotations

from staf.data.registry import find_task
from staf.experts.store import ExpertSet
from staf.routing.objective import RouterObjective
from staf.routing.pruning import pruned_weights
from staf.routing.store import Router
from staf.stages.adaptation import adaptation_examples
from staf.stages.context import Context


def reduction_loss(context: Context, router: Router, experts: ExpertSet, smaller: ExpertSet) -> dict[str, float]:
    """L_task on the examples that a router was learned from: `before`, and `after` with the smaller set.

    The weight of experts that are left out goes to those that are kept; nothing is adapted again.

    Raises:
        MissingData: the task's data is not here. BaseMismatch, ExpertMismatch: the router was made for another base or set.
    """
    router.check(context.identity, experts)
    settings = router.settings
    examples = adaptation_examples(context, find_task(router.task), settings.shots, settings.seed)
    kept = [experts.names.index(name) for name in smaller.names]
    sides = {"before": (experts, router.weights), "after": (smaller, pruned_weights(router.weights, kept))}
    found = {}
    for name, (some, weights) in sides.items():
        (found[name],) = RouterObjective(context.mixture(some), settings).judge(examples)(weights[None])
    return found
