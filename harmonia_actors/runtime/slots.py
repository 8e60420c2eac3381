"""Who gets which task actor: the pool's decisions, as a plain object.

Events come in (a holder asks, gives back, dies; an actor is ready or has died; time passes),
effects come out (create, kill, grant, recall, refuse). Classes are told apart by QueueKey. Actors
of the default class have a warm floor; others come on demand and go when idle, and while one of
them cannot start for want of resources, idle actors of other classes make room.
This module must not know Ray: the pool actor performs the effects.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum

from harmonia_actors.core.resources import Capacity, ResourceRequest
from harmonia_actors.runtime.orders import QueueKey
from harmonia_actors.runtime.pool_effects import (
    CreateActor,
    Effect,
    Grant,
    KillActor,
    Recall,
    Refuse,
)
from harmonia_actors.runtime.room import Occupant, who_makes_room

__all__ = ["PoolLimits", "SlotPool"]


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Sizes and times of the pool."""

    warm_min: int
    #: Without those for async actions that ask for nothing: they take no CPU.
    actors_max: int
    idle_ms: int
    #: A class whose actor has been pending for this long may take room from idle actors.
    room_after_ms: int = 2_000
    #: … and after this long also where there should be room for it: others have taken it.
    others_after_ms: int = 10_000
    #: Actors that wait for resources at one time, per class: they are the demand that an
    #: autoscaler sees.
    pending_max: int = 8


#: Waits after an actor that died before it was ready; doubled each time.
_AGAIN_MS = 1_000
_AGAIN_MS_MAX = 30_000


class _State(Enum):
    STARTING = "starting"
    IDLE = "idle"
    LEASED = "leased"


@dataclass(slots=True)
class _Actor:
    name: str
    key: QueueKey
    since_ms: int
    state: _State = _State.STARTING
    holder: str = ""
    node_id: str = ""
    #: To be ended when it is given back, because its resources are needed elsewhere.
    doomed: bool = False
    #: Its holder was asked to give it (or another one like it) back.
    recalled: bool = False
    #: Of a shared actor: who uses it, and by how many leases.
    sharers: Counter[str] = field(default_factory=Counter)

    @property
    def is_free(self) -> bool:
        """Whether it has started and nobody may have given it something to run."""
        return self.state is _State.IDLE and not self.sharers


@dataclass(slots=True)
class _Request:
    ticket: int
    holder: str
    key: QueueKey
    want: int


def class_of(key: QueueKey) -> QueueKey:
    """The class of actor that serves a key: its resources in canonical form."""
    return replace(key, resources=key.resources.quantised())


def _same_class(one: QueueKey, other: QueueKey) -> bool:
    return one.resources == other.resources and one.shared == other.shared


def _is_light(key: QueueKey) -> bool:
    """Whether its actor, for async actions that ask for nothing, takes no CPU."""
    return key.shared and key.resources == ResourceRequest.DEFAULT


@dataclass
class SlotPool:
    """The pool's state. Every method returns the effects to perform, in order."""

    limits: PoolLimits
    capacity: Capacity
    #: Makes names that no actor has had: what is said about one must never be taken for another.
    new_name: Callable[[], str]
    _actors: dict[str, _Actor] = field(default_factory=dict)
    _requests: OrderedDict[int, _Request] = field(default_factory=OrderedDict)
    _tickets: int = 0
    _default: QueueKey = field(default_factory=QueueKey)
    #: Classes whose last actor died before it was ready: how often in a row, and until when no
    #: other one is started.
    _failed: dict[QueueKey, tuple[int, int]] = field(default_factory=dict)

    # What holders do ---------------------------------------------------------------------------

    def ask(self, holder: str, key: QueueKey, want: int, now_ms: int) -> tuple[int, list[Effect]]:
        """A holder wants actors. The ticket names the answer, which may come at once."""
        self._tickets += 1
        ticket = self._tickets
        key = class_of(key)
        reason = self._never(key)
        if reason:
            return ticket, [Refuse(ticket, reason)]
        self._requests[ticket] = _Request(ticket, holder, key, max(1, want))
        return ticket, self._serve(now_ms)

    def withdraw(self, ticket: int) -> None:
        """The holder does not wait any more."""
        self._requests.pop(ticket, None)

    def give_back(self, holder: str, names: list[str], now_ms: int) -> list[Effect]:
        """A holder does not need these actors any more."""
        effects: list[Effect] = []
        for name in names:
            actor = self._actors.get(name)
            if actor is None or not self._take_back(actor, holder, now_ms):
                continue
            if actor.doomed:
                del self._actors[name]
                effects.append(KillActor(name))
            else:
                self._recall_answered(actor, holder)
        return [*effects, *self._make_place(now_ms, recall=False), *self._serve(now_ms)]

    def _take_back(self, actor: _Actor, holder: str, now_ms: int) -> bool:
        """End a lease; True if the actor is free by it."""
        if actor.key.shared:
            actor.sharers -= Counter((holder,))
        elif actor.holder == holder:
            actor.state, actor.holder = _State.IDLE, ""
        else:
            return False
        if actor.is_free:
            actor.since_ms = now_ms
        return actor.is_free

    def _recall_answered(self, given: _Actor, holder: str) -> None:
        """The holder chose which actor to give: the mark may be on another one of his."""
        if not given.recalled:
            for actor in self._actors.values():
                if actor.holder == holder and actor.recalled and self._serves(actor, given.key):
                    actor.recalled = False
                    break
        given.recalled = False

    def forget_requests(self, holder: str, now_ms: int) -> list[Effect]:
        """A holder has died: its requests are void. What it held is freed by `give_back`."""
        for ticket in [t for t, r in self._requests.items() if r.holder == holder]:
            del self._requests[ticket]
        return self._serve(now_ms)

    def held_by(self, holder: str) -> list[str]:
        """Actors that a holder has, each as often as he has leases of it."""
        held = []
        for actor in self._actors.values():
            leases = actor.sharers[holder] if actor.key.shared else actor.holder == holder
            held += [actor.name] * leases
        return held

    # What happens to actors --------------------------------------------------------------------

    def actor_ready(self, name: str, node_id: str, now_ms: int) -> list[Effect]:
        """An actor that was created can be used."""
        actor = self._actors.get(name)
        if actor is None:
            return [KillActor(name)]
        self._failed.pop(actor.key, None)
        if actor.state is _State.STARTING:
            actor.state, actor.node_id, actor.since_ms = _State.IDLE, node_id, now_ms
        return self._serve(now_ms)

    def adopt(self, name: str, key: QueueKey, node_id: str, holder: str, now_ms: int) -> None:
        """An actor that is left from an earlier pool; `holder` is empty if nobody uses it."""
        actor = self._actors[name] = _Actor(name, class_of(key), now_ms, _State.IDLE, "", node_id)
        if holder:
            self._lend(actor, holder)

    def actor_died(self, name: str, now_ms: int) -> list[Effect]:
        """An actor is gone; it is replaced if somebody waits for it or the floor needs it."""
        actor = self._actors.pop(name, None)
        if actor is not None and actor.state is _State.STARTING:
            times = self._failed.get(actor.key, (0, 0))[0] + 1
            wait_ms = min(_AGAIN_MS_MAX, _AGAIN_MS * 2 ** min(times - 1, 10))
            self._failed[actor.key] = (times, now_ms + wait_ms)
        return [*self._serve(now_ms), *self._floor(now_ms)]

    def tick(
        self, now_ms: int, capacity: Capacity | None = None, limits: PoolLimits | None = None
    ) -> list[Effect]:
        """Time has passed: keep the floor, end what has been idle for long, make room."""
        self.capacity = capacity or self.capacity
        self.limits = limits or self.limits
        effects = self._refuse_hopeless()
        effects += self._make_room(now_ms)
        effects += self._make_place(now_ms, recall=True)
        effects += self._end_idle(now_ms)
        effects += self._serve(now_ms)
        effects += self._floor(now_ms)
        return effects

    def counts(self) -> dict[str, int]:
        """How many actors there are by state, and how many requests wait."""
        found = {state.value: 0 for state in _State}
        for actor in self._actors.values():
            found[actor.state.value] += 1
        return {**found, "requests": len(self._requests)}

    def names(self) -> list[str]:
        """All actors of the pool."""
        return list(self._actors)

    # Decisions ---------------------------------------------------------------------------------

    def _never(self, key: QueueKey) -> str:
        is_light = _is_light(key)
        if not is_light and not self.capacity.can_ever_meet(key.resources):
            return self.capacity.explain(key.resources)
        if not key.node_id:
            return ""
        if not self.capacity.has_node(key.node_id):
            return (
                "the node that holds the execution's workspace is gone; configure a workspace "
                "directory that all nodes share to survive this"
            )
        if not is_light and key.node_id not in self.capacity.nodes_for([key.resources]):
            return (
                f"the task asks for {key.resources.describe()}, which the node that holds the "
                "execution's workspace does not have; configure a workspace directory that all "
                "nodes share, so that tasks with files can run on any node"
            )
        return ""

    def _refuse_hopeless(self) -> list[Effect]:
        effects: list[Effect] = []
        for request in list(self._requests.values()):
            reason = self._never(request.key) if request.key.node_id else ""
            if reason:
                del self._requests[request.ticket]
                effects.append(Refuse(request.ticket, reason))
        return effects

    def _serve(self, now_ms: int) -> list[Effect]:
        """Grant what is idle, oldest request first; create and recall for those left waiting."""
        effects: list[Effect] = []
        unmet: dict[QueueKey, int] = {}
        for request in list(self._requests.values()):
            found = self._idle(request.key, request.want)
            if not found:
                unmet[request.key] = unmet.get(request.key, 0) + request.want
                continue
            for actor in found:
                self._lend(actor, request.holder)
            del self._requests[request.ticket]
            effects.append(Grant(request.ticket, tuple(actor.name for actor in found)))
            if len(found) < request.want and not request.key.shared:
                # Its holder will ask again; meanwhile more actors can be on their way.
                unmet.setdefault(request.key, 0)
                unmet[request.key] += request.want - len(found)
        # Whoever has no actor at all goes first: a place that was made for him is not another's.
        for key in sorted(unmet, key=self._has_one):
            effects += self._create(key, unmet[key], now_ms)
        for request in self._requests.values():
            effects += self._recall(request)
        return effects

    def _lend(self, actor: _Actor, holder: str) -> None:
        if actor.key.shared:
            actor.sharers[holder] += 1
        else:
            actor.state, actor.holder = _State.LEASED, holder

    def _idle(self, key: QueueKey, want: int) -> list[_Actor]:
        found = []
        for actor in self._actors.values():
            if actor.state is _State.IDLE and not actor.doomed and self._serves(actor, key):
                found.append(actor)
                if len(found) == want or key.shared:
                    break
        return found

    def _serves(self, actor: _Actor, key: QueueKey) -> bool:
        return (
            actor.key.resources == key.resources
            and actor.key.shared == key.shared
            and (not key.node_id or actor.node_id == key.node_id)
        )

    def _may_serve(self, actor: _Actor, key: QueueKey) -> bool:
        if actor.state is _State.STARTING:
            return actor.key == key
        return self._serves(actor, key)

    def _create(self, key: QueueKey, want: int, now_ms: int) -> list[Effect]:
        if now_ms < self._failed.get(key, (0, 0))[1]:
            return []
        mine = [a for a in self._actors.values() if a.key == key]
        starting = sum(a.state is _State.STARTING for a in mine)
        if key.shared:
            want = 1 if not mine else 0
        room = 1 if _is_light(key) else self._places_left()
        if not key.shared and key.resources == self._default.resources:
            # Beyond what the nodes have, an actor can only wait for a node that may be added.
            most = max(self.capacity.total_cpus(), self.limits.warm_min)
            if self.capacity.node_types:
                most += self.limits.pending_max
            there = [a for a in self._actors.values() if _same_class(a.key, key) and not a.doomed]
            room = min(room, most - len(there))
        elif not _is_light(key):
            room = min(room, self._left_of(key))
        if key.node_id and not any(self._may_serve(a, key) for a in self._actors.values()):
            # Actors elsewhere cannot help; room is made for this one.
            room = max(room, 1)
        count = min(want - starting, room, self.limits.pending_max - starting)
        return [self._new(key, now_ms) for _ in range(max(0, count))]

    def _left_of(self, key: QueueKey) -> int:
        """How many more of a class could ever start; that many only are worth waiting for."""
        most = self.capacity.can_hold(key.resources, key.node_id)
        if most is None:
            return self.limits.pending_max
        there = [a for a in self._actors.values() if self._may_serve(a, key) and not a.doomed]
        return most - len(there)

    def _places_left(self) -> int:
        taken = sum(not _is_light(actor.key) for actor in self._actors.values())
        return self.limits.actors_max - taken

    def _has_one(self, key: QueueKey) -> bool:
        """Whether some actor can serve this, or will."""
        return any(self._may_serve(a, key) and not a.doomed for a in self._actors.values())

    def _new(self, key: QueueKey, now_ms: int) -> CreateActor:
        name = self.new_name()
        self._actors[name] = _Actor(name, key, now_ms)
        return CreateActor(name, key)

    def _recall(self, request: _Request) -> list[Effect]:
        """Somebody waits: whoever has most actors of the class, and more than he, gives one back.

        A holder is asked once until he answers; if what he runs takes long, another one is asked.
        """
        held: dict[str, list[_Actor]] = {}
        asked: set[str] = set()
        for actor in self._actors.values():
            if actor.state is _State.LEASED and self._serves(actor, request.key):
                held.setdefault(actor.holder, []).append(actor)
                if actor.recalled:
                    asked.add(actor.holder)
        mine = len(held.pop(request.holder, []))
        for holder in asked:
            held.pop(holder, None)
        if not held:
            return []
        most = max(sorted(held), key=lambda holder: len(held[holder]))
        if len(held[most]) <= mine:
            return []
        held[most][0].recalled = True
        return [Recall(most, request.key, 1)]

    def _floor(self, now_ms: int) -> list[Effect]:
        """What is missing of the warm floor: default actors, and the one for async actions."""
        if self._pending(now_ms, 0) or now_ms < self._failed.get(self._default, (0, 0))[1]:
            return []
        mine = sum(a.key == self._default for a in self._actors.values())
        missing = min(self.limits.warm_min, self.capacity.total_cpus() or 1) - mine
        missing = min(missing, self._places_left())
        effects: list[Effect] = [self._new(self._default, now_ms) for _ in range(max(0, missing))]
        shared = QueueKey(shared=True)
        if not any(a.key == shared for a in self._actors.values()):
            effects += self._create(shared, 1, now_ms)
        return effects

    def _pending(self, now_ms: int, for_ms: int) -> list[_Actor]:
        """Actors that somebody waits for and that have been starting for so long."""
        wanted = {request.key for request in self._requests.values()}
        return [
            a
            for a in self._actors.values()
            if a.state is _State.STARTING and a.key in wanted and now_ms - a.since_ms >= for_ms
        ]

    def _make_room(self, now_ms: int) -> list[Effect]:
        """End one actor whose resources another one waits for; leased ones when they come back."""
        since: dict[QueueKey, int] = {}
        for pending in self._pending(now_ms, self.limits.room_after_ms):
            since.setdefault(pending.key, pending.since_ms)
        occupants = self._occupants() if since else []
        for key, since_ms in since.items():
            waits_long = now_ms - since_ms >= self.limits.others_after_ms
            name = who_makes_room(key, occupants, self.capacity, waits_long=waits_long)
            if name is None or _is_light(key):
                continue
            actor = self._actors[name]
            if actor.is_free:
                del self._actors[name]
                return [KillActor(name)]
            actor.doomed = True
            holders = actor.sharers if actor.key.shared else {actor.holder: 1}
            return [Recall(holder, actor.key, count) for holder, count in holders.items()]
        return []

    def _occupants(self) -> list[Occupant]:
        return [
            Occupant(
                actor.name,
                actor.node_id,
                {} if _is_light(actor.key) else actor.key.resources.demand(),
                is_idle=actor.is_free,
                is_doomed=actor.doomed,
                is_shared=actor.key.shared,
            )
            for actor in self._actors.values()
            if actor.state is not _State.STARTING
        ]

    def _make_place(self, now_ms: int, *, recall: bool) -> list[Effect]:
        """At the ceiling, others leave a place to each class that has none and can use it now."""
        wanted = {request.key for request in self._requests.values()}
        left = self._places_left()
        needed = 0 if left > 0 else sum(self._needs_place(key, now_ms) for key in wanted)
        effects: list[Effect] = []
        # Those for one node may have come beyond the ceiling: so many more must go.
        for _ in range(needed - left if needed else 0):
            actor = self._missed_least()
            if actor is None:
                break
            if actor.state is not _State.LEASED:
                del self._actors[actor.name]
                effects.append(KillActor(actor.name))
            elif recall:
                actor.recalled = True
                effects.append(Recall(actor.holder, actor.key, 1))
        return effects

    def _needs_place(self, key: QueueKey, now_ms: int) -> bool:
        if now_ms < self._failed.get(key, (0, 0))[1] or self._left_of(key) <= 0:
            return False
        return not (_is_light(key) or key.node_id or self._has_one(key))

    def _missed_least(self) -> _Actor | None:
        """Idle before starting before leased; of the class that has most.

        One that is leased and was asked for already may run something long: it is another's turn.
        """
        others = [a for a in self._actors.values() if not a.key.shared and not a.doomed]
        sizes = Counter(actor.key.resources for actor in others)
        order = (_State.IDLE, _State.STARTING, _State.LEASED)
        return min(
            (a for a in others if not a.recalled and (a.node_id or sizes[a.key.resources] > 1)),
            key=lambda a: (order.index(a.state), -sizes[a.key.resources]),
            default=None,
        )

    def _end_idle(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        floor = self.limits.warm_min
        warm = sum(a.key == self._default for a in self._actors.values())
        wanted = {request.key for request in self._requests.values()}
        for actor in list(self._actors.values()):
            long_idle = now_ms - actor.since_ms >= self.limits.idle_ms
            # One that nobody waits for any more must not stay as demand for a bigger cluster.
            unwanted = actor.state is _State.STARTING and actor.key not in wanted
            if not (actor.is_free or unwanted) or not long_idle or _is_light(actor.key):
                continue
            if actor.key == self._default:
                if warm <= floor:
                    continue
                warm -= 1
            del self._actors[actor.name]
            effects.append(KillActor(actor.name))
        return effects
