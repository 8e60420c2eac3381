"""What the nodes of the Ray cluster have, and what nodes its autoscaler may add.

The nodes are in Ray's own tables. The node types are not: open-source Ray keeps them to the
autoscaler's process on the head node. They are taken from where they can be found: declared in
the settings (Kubernetes, where the autoscaler lives in another container), published in Ray's
tables (some platforms), or in the file that the autoscaler on the head node was started with.
This module must not decide anything; `harmonia_actors.core.resources` does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psutil
import ray
import yaml
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harmonia_actors.core.resources import Capacity

__all__ = ["CapacityReader", "node_types_of_config", "read_capacity"]

_log = logging.getLogger(__name__)

NodeTypes = tuple[dict[str, float], ...]

#: The autoscaler's file changes when somebody runs `ray up` again: rarely.
_TYPES_AGE_S_MAX: Final = 60.0
#: A process on the head node may first have to start.
_HEAD_WAIT_S: Final = 15.0
_HEAD_MARK: Final = "node:__internal_head__"


class CapacityReader:
    """Reads the cluster's capacity again and again; asks for node types once a minute.

    Used in one thread of a process that is connected to Ray.
    """

    def __init__(self, declared: Sequence[Mapping[str, float]] = ()) -> None:
        self._declared: NodeTypes = tuple(dict(each) for each in declared)
        self._types: NodeTypes | None = self._declared or None
        self._asked_at = float("-inf")
        self._answer: ray.ObjectRef[Any] | None = None

    def read(self) -> Capacity:
        """The capacity now. Waits for an answer from the head node the first time only.

        Raises Ray's own errors if the cluster cannot be reached.
        """
        nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        if not self._declared:
            self._refresh(nodes)
        return Capacity(
            nodes={node["NodeID"]: dict(node["Resources"]) for node in nodes},
            node_types=self._types or (),
            complete=self._types is not None,
        )

    def _refresh(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        if self._answer is None and time.monotonic() - self._asked_at > _TYPES_AGE_S_MAX:
            self._asked_at = time.monotonic()
            published = _published_node_types()
            if published is not None:
                self._types = published
            else:
                self._ask_head(nodes)
        if self._answer is not None:
            self._take_answer(self._answer, _HEAD_WAIT_S if self._types is None else 0)

    def _ask_head(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        head = next((node["NodeID"] for node in nodes if _HEAD_MARK in node["Resources"]), None)
        if head is None:
            return
        context = ray.get_runtime_context()
        if head == context.get_node_id():
            try:
                self._types = _autoscaler_node_types(context.gcs_address)
            except (OSError, ValueError, yaml.YAMLError, psutil.Error) as error:
                # Next time the file may be whole again; until then nothing counts as impossible.
                _log.warning("it cannot be read which nodes may be added: %s", error)
            return
        task = ray.remote(_autoscaler_node_types).options(
            num_cpus=0,
            max_retries=0,
            enable_task_events=False,
            scheduling_strategy=NodeAffinitySchedulingStrategy(head, soft=False),
        )
        self._answer = task.remote(context.gcs_address)

    def _take_answer(self, answer: ray.ObjectRef[Any], wait_s: float) -> None:
        try:
            self._types = ray.get(answer, timeout=wait_s)
        except GetTimeoutError:
            return  # The next reading looks again.
        except RayError as error:
            _log.warning("the head node could not say which nodes may be added: %s", error)
        self._answer = None


def read_capacity(declared: Sequence[Mapping[str, float]] = ()) -> Capacity:
    """The capacity once. Whoever reads it often keeps a `CapacityReader`."""
    return CapacityReader(declared).read()


def node_types_of_config(config: Any) -> NodeTypes:
    """Resources of the node types that an autoscaler with this configuration may add.

    `config` is that of Ray's cluster launcher, as it lies on the head node, and may be anything:
    it may be half written. The head's own type and types without workers are none of them.
    """
    config = _mapping(config)
    most = config.get("max_workers")
    found = []
    for name, raw in _mapping(config.get("available_node_types")).items():
        node_type = _mapping(raw)
        workers = node_type.get("max_workers", 0 if name == config.get("head_node_type") else most)
        if workers == 0 or most == 0:
            continue
        resources = _mapping(node_type.get("resources"))
        found.append({key: float(n) for key, n in resources.items() if isinstance(n, int | float)})
    return tuple(found)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _published_node_types() -> NodeTypes | None:
    """Node types from Ray's tables, if the platform puts them there."""
    config = ray._private.state.state.get_cluster_config()
    if config is None or not config.node_group_configs:
        return None
    return tuple(
        {key: float(amount) for key, amount in group.resources.items()}
        for group in config.node_group_configs
        if group.max_count != 0
    )


def _autoscaler_node_types(gcs_address: str) -> NodeTypes:
    """Run on the head node: node types of this cluster's autoscaler; none if it has none."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if f"--gcs-address={gcs_address}" not in words:
            continue
        for word in words:
            name, _, path = word.partition("=")
            if name == "--autoscaling-config":
                config = yaml.safe_load(Path(path).expanduser().read_text("utf-8"))
                return node_types_of_config(config)
    return ()
