"""Which attempts go to a task actor together: a pure choice from what waits.

This module must not know Ray.
"""

from __future__ import annotations

from harmonia_actors.runtime.dispatch_queues import AttemptQueue, DispatchLimits, Held
from harmonia_actors.runtime.durations import Durations
from harmonia_actors.runtime.in_flight import size_of
from harmonia_actors.runtime.orders import AttemptOrder

__all__ = ["next_batch"]

#: What a call to a task actor costs, about, in seconds of both sides: work that takes no longer is
#: not shared out.
_WORTH_A_CALL_S = 0.002


def next_batch(
    queue: AttemptQueue, held: Held, limits: DispatchLimits, durations: Durations
) -> list[AttemptOrder]:
    """Take the next batch for this actor out of the queue; empty if it has enough."""
    if held.key.shared:
        room = share = limits.shared_attempts_max - len(held.given)
        target_s = float("inf")
    else:
        room = 0 if held.batches or held.asking_back else limits.batch_attempts_max
        target_s = limits.batch_target_ms / 1000
        # Nobody gets more than an even share of what is left, if that is worth a call; unless one
        # more task actor has been asked for already, it may be had at once, and shares.
        actors = len(queue.held) + (not queue.acquiring)
        share = -(-len(queue.waiting) // max(1, actors))
    batch: list[AttemptOrder] = []
    spent_s, spent_bytes = 0.0, 0
    while queue.order and len(batch) < room:
        order = queue.waiting.get(queue.order[0])
        if order is None:
            queue.order.popleft()
            continue
        expected_s = durations.expected_of_all(order, otherwise=target_s)
        spent_bytes += size_of(order)
        most_s = target_s if len(batch) < share else _WORTH_A_CALL_S
        if batch and (spent_s + expected_s > most_s or spent_bytes > limits.batch_bytes_max):
            break
        spent_s += expected_s
        queue.order.popleft()
        del queue.waiting[order.id]
        batch.append(order)
    return batch
