"""What an execution actor is made of. Only a process that is one is to load it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from harmonia_actors.actors import owner_limits, parts
from harmonia_actors.actors.names import broadcaster_name
from harmonia_actors.actors.output_limits import ordering_limits
from harmonia_actors.actors.ray_ports import ActorRef, RayLeases, RaySink
from harmonia_actors.actors.recovery import RayCensus
from harmonia_actors.actors.stale import StaleTeller
from harmonia_actors.actors.store_parts import connect_store
from harmonia_actors.runtime.clock import SteadyClock, StoreClock, SystemClock
from harmonia_actors.runtime.dispatch import Dispatcher
from harmonia_actors.runtime.host import ExecutionHost
from harmonia_actors.runtime.nodes import WorkspaceNodes
from harmonia_actors.runtime.orders import Report
from harmonia_actors.runtime.shards import ShardedSink
from harmonia_actors.runtime.tenure import Tenure
from harmonia_actors.settings import Settings

__all__ = ["OwnerParts"]


class OwnerParts:
    """What can be made before a loop runs, and from it the host."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        pool: ActorRef,
        leases: RayLeases,
        nodes: WorkspaceNodes,
        stale: StaleTeller,
    ) -> None:
        self._name = name
        self._settings = settings
        self._pool = pool
        self._leases = leases
        self._nodes = nodes
        self._stale = stale
        self._registry = parts.make_registry(settings)

    def make(
        self, tell: Callable[[Sequence[Report]], None], call_others: Callable[[], Awaitable[None]]
    ) -> tuple[Dispatcher, ExecutionHost]:
        """The host and what it starts attempts with. To be called where a loop runs."""
        settings = self._settings
        namespace = settings.namespace
        store, clock = connect_store(settings), SystemClock()
        store_clock = StoreClock(clock, store.time_ms, SteadyClock)
        census = RayCensus(self._pool, self._name, owner_limits.census_times(settings))
        tenure = Tenure()
        dispatcher = Dispatcher(
            leases=self._leases,
            tell=tell,
            clock=clock.steady(),
            limits=owner_limits.dispatch_limits(settings),
            may_give=lambda: tenure.is_certain,
            note_stale=self._stale,
        )
        census.dispatcher = dispatcher
        host = ExecutionHost(
            owner=self._name,
            store=store,
            blobs=parts.make_blobs(settings),
            registry=self._registry,
            attempts=dispatcher,
            sink=ShardedSink(
                [
                    RaySink(ActorRef(broadcaster_name(namespace, shard), namespace))
                    for shard in range(settings.broadcasters)
                ]
            ),
            clock=store_clock,
            limits=owner_limits.host_limits(settings),
            core_limits=owner_limits.core_limits(settings),
            ordering_limits=ordering_limits(settings),
            take_census=census.take,
            nodes=self._nodes,
            call_others=call_others,
            learn_time=store_clock.learn,
            note_stale=self._stale,
            tenure=tenure,
        )
        return dispatcher, host
