"""Clients of the service: they start, cancel, checkpoint, restore, and try again when told to."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from harmonia_actors.core.errors import (
    CheckpointNotFound,
    ComponentFailed,
    Conflict,
    ExecutionFailed,
    ServiceUnavailable,
)
from harmonia_actors.core.requests import ExecutionReply, Once, PageRequest
from harmonia_actors.core.resources import Capacity
from harmonia_actors.core.statuses import ExecutionStatus
from harmonia_actors.runtime.ending import Ending
from harmonia_actors.runtime.ports import TaskActorDied
from harmonia_actors.runtime.service.checkpoints import CheckpointService
from tests.simulation.network import Network
from tests.simulation.owners import SimulatedOwner
from tests.simulation.scenario import ClientPlan, Scenario
from tests.simulation.supervisor import SimulatedSupervisor
from tests.simulation.virtual_loop import Process, pass_time

__all__ = ["Clients", "ServiceReplica", "SimulatedLauncher"]

_AGAIN_S = 0.2
_TRIES_MAX = 500


class SimulatedLauncher:
    """The port Launcher: messages to owners and to the supervisor, which may get lost."""

    def __init__(
        self,
        process: Process,
        network: Network,
        owners: Mapping[str, SimulatedOwner],
        supervisor: Callable[[], SimulatedSupervisor],
        capacity: Capacity,
    ) -> None:
        self._process = process
        self._network = network
        self._owners = owners
        self._supervisor = supervisor
        self._capacity = capacity

    async def start(
        self, owner: str, execution_id: str, definition: str, fields: Mapping[str, bytes]
    ) -> None:
        to = self._owners[owner]
        self._send(to.process, to.started, execution_id, definition, dict(fields))

    async def wanted(self) -> None:
        supervisor = self._supervisor()
        self._send(supervisor.process, supervisor.wanted)

    async def nudge(self, owner: str, execution_id: str) -> None:
        to = self._owners[owner]
        self._send(to.process, to.nudged, execution_id)

    async def wait_ended(self, owner: str, execution_id: str) -> Ending | None:
        to = self._owners[owner]
        with contextlib.suppress(TaskActorDied):
            return await self._network.call(
                self._process, to.process, "wait", to.host.wait_ended, execution_id
            )
        return None

    async def capacity(self) -> Capacity:
        return self._capacity

    async def counts(self) -> dict[str, float]:
        return {}

    def _send(self, to: Process, deliver: Callable[..., Any], *arguments: Any) -> None:
        self._network.send(self._process, to, deliver, *arguments, kind="message")


@dataclass(frozen=True)
class ServiceReplica:
    """A replica of the service, in a process that may die."""

    process: Process
    service: CheckpointService


class Clients:
    """All clients of one run. They outlive the service and call it again when it is back."""

    def __init__(
        self,
        process: Process,
        network: Network,
        replica: Callable[[], ServiceReplica],
        follow: Callable[[str, float], None],
        acknowledged: Callable[[str], None],
        scenario: Scenario,
    ) -> None:
        self._process = process
        self._network = network
        self._replica = replica
        self._follow = follow
        self._acknowledged = acknowledged
        self._scenario = scenario
        self.counts: Counter[str] = Counter()
        self._workflow_ids: list[str] = []
        self._keys = 0
        #: Executions that came of what they asked for: each must have been made once.
        self.made: list[str] = []
        #: Restores that were refused, of which a send before may still have been under way.
        self.perhaps_made = 0

    async def run(self) -> None:
        """Do all that is planned."""
        for definition in self._scenario.workflows:
            made = await self._ask_once("create_workflow", definition)
            self._workflow_ids.append(made["workflow_id"])
        await asyncio.gather(*(self._carry_out(plan) for plan in self._scenario.clients))

    async def _carry_out(self, plan: ClientPlan) -> None:
        await pass_time(plan.begins_s)
        workflow_id = self._workflow_ids[plan.workflow]
        if plan.options.get("async") is False:
            await self._wait(workflow_id, plan)
            return
        reply = await self._ask_once("execute", workflow_id, {}, dict(plan.options))
        execution_id = reply.document["execution_id"]
        self.made.append(execution_id)
        self.counts["started"] += 1
        if plan.follows_s is not None:
            self._follow(execution_id, plan.follows_s)
        steps = [
            self._checkpoint(execution_id, after_s, restore_s)
            for after_s, restore_s in zip(
                plan.checkpoints_after_s, plan.restores_after_s, strict=True
            )
        ]
        if plan.restores_automatic_s is not None:
            steps.append(self._restore_automatic(execution_id, plan.restores_automatic_s))
        if plan.cancels_after_s is not None:
            steps.append(self._cancel(execution_id, plan.cancels_after_s))
        await asyncio.gather(*steps)

    async def _wait(self, workflow_id: str, plan: ClientPlan) -> None:
        """A request that is answered with the end."""
        try:
            reply = await self._ask_once("execute", workflow_id, {}, dict(plan.options))
        except (ComponentFailed, ExecutionFailed) as error:
            self.made.append(error.details["execution_id"])
            self.counts["waited for a failure"] += 1
        else:
            execution_id = reply.document["execution_id"]
            self.made.append(execution_id)
            self.counts["waited for an end" if reply.ended else "waited in vain"] += 1
            # The store was away when it had ended: that it is asked for again is all that is left.
            while not ExecutionStatus(reply.document["status"]).is_final:
                await pass_time(_AGAIN_S)
                document = await self._ask("get_execution", execution_id, outputs=True)
                reply = ExecutionReply(document, ended=True)
        self.counts["started"] += 1

    async def _cancel(self, execution_id: str, after_s: float) -> None:
        await pass_time(after_s)
        try:
            await self._ask("cancel_execution", execution_id)
        except Conflict:
            self.counts["cancelled too late"] += 1
        else:
            self.counts["cancelled"] += 1
            self._acknowledged(execution_id)

    async def _checkpoint(self, execution_id: str, after_s: float, restore_s: float | None) -> None:
        await pass_time(after_s)
        made = await self._ask_once("create_checkpoint", execution_id, name="a", description="")
        self.counts["checkpoints"] += 1
        if restore_s is not None:
            await pass_time(restore_s)
            await self._restore(made["checkpoint_id"])
            self.counts["restored"] += 1

    async def _restore_automatic(self, execution_id: str, after_s: float) -> None:
        await pass_time(after_s)
        page = PageRequest(page=1, limit=100)
        found = await self._ask("list_checkpoints", page, execution_id=execution_id)
        automatic = [item for item in found["items"] if item["automatic"]]
        if automatic:
            try:
                await self._restore(automatic[0]["checkpoint_id"])
            except CheckpointNotFound:
                # The execution has pushed it out since. A send that got no answer may have read it
                # before, and make its execution only now.
                self.perhaps_made += 1
            else:
                self.counts["restored from automatic ones"] += 1

    async def _restore(self, checkpoint_id: str) -> None:
        reply = await self._ask_once("restore", checkpoint_id, {})
        self.made.append(reply.document["execution_id"])
        self._follow(reply.document["execution_id"], 0.0)

    async def _ask_once(self, method: str, *arguments: Any, **named: Any) -> Any:
        """With a key, so that what is sent again makes nothing again."""
        self._keys += 1
        return await self._ask(method, *arguments, once=Once("client", f"{self._keys}"), **named)

    async def _ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        """As a good client: what got no answer, or a 503, is tried again."""
        for _ in range(_TRIES_MAX):
            replica = self._replica()
            call = partial(getattr(replica.service, method), *arguments, **named)
            try:
                return await self._network.call(self._process, replica.process, "http", call)
            except (ServiceUnavailable, TaskActorDied):
                await pass_time(_AGAIN_S)
        raise AssertionError("the service stays unavailable")
