"""What a task asks of the machine that runs it, and whether any machine could ever give it.

A request's class is its canonical form: tasks of one class can share task actors. This module
knows names and numbers of resources as Ray counts them (`CPU`, `GPU`, `memory` in bytes, custom
ones). It must not know Ray, nor how the resources of a cluster are found out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, ClassVar, Final
from urllib.parse import quote

__all__ = ["Capacity", "ResourceRequest"]

#: Ray counts resources in ten-thousandths.
_UNITS: Final = 10_000
_QUANTITY_MAX: Final = 1_000_000_000.0
_CUSTOM_MAX: Final = 32
_NAME_LENGTH_MAX: Final = 128
#: Ray names a node's address, and what it is for, among its resources.
_ADDRESS: Final = "node:"
_MARK: Final = "node:__"
#: Memory is rounded up to steps, so that requests that differ by a little share actors.
_MEMORY_STEP_BYTES: Final = 256 * 2**20
_MEMORY_BYTES_MAX: Final = 2**60

_BYTES = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)(B?)\s*", re.IGNORECASE)
_POWERS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
#: Ray has words of its own for these; as custom resources they would never be met.
_KNOWN: Final = ("num_cpus", "num_gpus", "memory")
_MISSPELT: Final = {"cpu": "num_cpus", "cpus": "num_cpus", "gpu": "num_gpus", "gpus": "num_gpus"}


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """Resources that one attempt holds while it runs, all of them on one node."""

    DEFAULT: ClassVar[ResourceRequest]

    num_cpus: float = 1.0
    #: Below one: a share of a GPU. From one on: whole GPUs.
    num_gpus: float = 0.0
    memory_bytes: int = 0
    #: Custom Ray resources by name, sorted by it; each quantity is above zero.
    custom: tuple[tuple[str, float], ...] = ()

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> ResourceRequest:
        """A request from its JSON form: `num_cpus`, `num_gpus`, `memory`, custom resources.

        `memory` is in bytes, or text like "2GiB". Any other key is a custom resource, here or in
        an object `resources`. Raises `ValueError` with the field, its value and the way out.
        """
        rest = {key: value for key, value in raw.items() if key not in _KNOWN}
        nested = rest.pop("resources", {})
        if not isinstance(nested, Mapping):
            raise ValueError(  # noqa: TRY004 - one kind of error for a request that is not valid
                f'resources is {nested!r}; it must be an object, like {{"fpga": 1}}'
            )
        twice = sorted(set(rest) & set(nested))
        if twice:
            raise ValueError(f"{twice[0]} is given twice, here and in resources; leave one out")
        custom = {**rest, **nested}
        if len(custom) > _CUSTOM_MAX:
            raise ValueError(
                f"{len(custom)} custom resources are named; at most {_CUSTOM_MAX} are allowed"
            )
        return cls(
            num_cpus=_quantity("num_cpus", raw.get("num_cpus", 1)),
            num_gpus=_gpus(raw.get("num_gpus", 0)),
            memory_bytes=_memory_bytes(raw.get("memory", 0)),
            custom=tuple(sorted(_custom(name, custom[name]) for name in custom)),
        )

    @classmethod
    def covering(cls, requests: Iterable[ResourceRequest]) -> ResourceRequest:
        """The least that a node must have so that it can meet any one of these."""
        asked = list(requests)
        custom: dict[str, float] = {}
        for name, amount in (each for request in asked for each in request.custom):
            custom[name] = max(amount, custom.get(name, 0.0))
        return cls(
            num_cpus=max(request.num_cpus for request in asked),
            num_gpus=max(request.num_gpus for request in asked),
            memory_bytes=max(request.memory_bytes for request in asked),
            custom=tuple(sorted(custom.items())),
        )

    def quantised(self) -> ResourceRequest:
        """The class of the request: the same, with its memory rounded up to a step."""
        steps = -(-self.memory_bytes // _MEMORY_STEP_BYTES)
        return replace(self, memory_bytes=steps * _MEMORY_STEP_BYTES)

    def class_key(self) -> str:
        """The class as text, the same for the same class in every process and release."""
        request = self.quantised()
        parts = [f"cpu={_plain(request.num_cpus)}"]
        if request.num_gpus:
            parts.append(f"gpu={_plain(request.num_gpus)}")
        if request.memory_bytes:
            parts.append(f"memory={request.memory_bytes // 2**20}MiB")
        parts += (f"{quote(name, safe='')}={_plain(amount)}" for name, amount in request.custom)
        return ",".join(parts)

    def options(self) -> dict[str, Any]:
        """Options of a Ray actor that holds these resources; `parse` makes the request of them."""
        found: dict[str, Any] = {"num_cpus": _plain(self.num_cpus)}
        if self.num_gpus:
            found["num_gpus"] = _plain(self.num_gpus)
        if self.memory_bytes:
            found["memory"] = self.memory_bytes
        if self.custom:
            found["resources"] = {name: _plain(quantity) for name, quantity in self.custom}
        return found

    def demand(self) -> dict[str, float]:
        """Quantities by Ray's own names, none of them zero."""
        named = {"CPU": self.num_cpus, "GPU": self.num_gpus, "memory": float(self.memory_bytes)}
        return {name: amount for name, amount in (named | dict(self.custom)).items() if amount}

    def describe(self) -> str:
        """The request in words, as in `2 CPUs, 0.5 GPU and 2 GiB of memory`."""
        parts = [_amount(name, quantity) for name, quantity in self.demand().items()]
        return _joined(parts) or "no resources"


ResourceRequest.DEFAULT = ResourceRequest()


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the nodes of a cluster have in all, busy or not, and what nodes may join it."""

    #: Total resources, by Ray's names, of each node that is alive, by Ray's ids.
    nodes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    #: Resources of a node of each type that the autoscaler may still add.
    node_types: tuple[Mapping[str, float], ...] = ()
    #: False while it is not known what nodes may join: then nothing counts as impossible.
    complete: bool = True

    def has_node(self, node_id: str) -> bool:
        """Whether this node is alive."""
        return node_id in self.nodes

    def place_of(self, node_id: str) -> str:
        """What finds a node again when the cluster has been restarted: its id, and its address.

        `ID@ADDRESS`, or the id alone if Ray names no address. Ray gives a node another id at each
        start; its disks stay where they were.
        """
        address = self._address_of(node_id)
        return f"{node_id}@{address}" if address else node_id

    def node_at(self, place: str) -> str | None:
        """The node that is at a place now (`place_of`), or None if it is gone.

        The node with that id, or else one with that address: two on one machine share its disks.
        """
        node_id, _, address = place.partition("@")
        if node_id in self.nodes:
            return node_id
        if not address:
            return None
        return min((n for n in self.nodes if self._address_of(n) == address), default=None)

    def _address_of(self, node_id: str) -> str:
        for name in self.nodes.get(node_id, ()):
            if name.startswith(_ADDRESS) and not name.startswith(_MARK):
                return name.removeprefix(_ADDRESS)
        return ""

    def nodes_for(self, requests: Iterable[ResourceRequest]) -> list[str]:
        """Nodes that are alive on each of which any one of the requests can be met, sorted."""
        demands = [request.demand() for request in requests]
        return sorted(
            node_id
            for node_id, node in self.nodes.items()
            if all(_holds(node, demand) for demand in demands)
        )

    def total_cpus(self) -> int:
        """CPUs of all nodes that are alive, in whole."""
        return int(sum(node.get("CPU", 0) for node in self.nodes.values()))

    def can_hold(self, request: ResourceRequest, node_id: str = "") -> int | None:
        """How many times the nodes, or one of them, have what is asked for, all at a time.

        None if that has no bound: nothing is asked for, or nodes that have it may be added.
        """
        demand = request.demand()
        if not demand:
            return None
        if node_id:
            return _times(self.nodes.get(node_id, {}), demand)
        if not self.complete or any(_holds(place, demand) for place in self.node_types):
            return None
        return sum(_times(node, demand) for node in self.nodes.values())

    def can_ever_meet(self, request: ResourceRequest) -> bool:
        """Whether one node, or one of a type that may be added, has all that is asked for."""
        demand = request.demand()
        return not self.complete or any(_holds(place, demand) for place in self._places())

    def explain(self, request: ResourceRequest) -> str:
        """Why the request can never be met: what is asked, and the most that there is."""
        asked = f"the task asks for {request.describe()}"
        if not any(self._places()):
            return f"{asked}, but the cluster has no node; start one"
        demand = request.demand()
        short = [name for name in demand if not self._reaches(name, demand[name])]
        if not short:
            return (
                f"{asked} on one node; each of these is there, but no node"
                f"{self._or_type()} has them all together; ask for less, or add such a node"
            )
        most = _joined([self._most(name) for name in short])
        return (
            f"{asked}, but the most on one node{self._or_type()} is {most}; "
            "ask for less, or add such a node"
        )

    def _places(self) -> Iterator[Mapping[str, float]]:
        yield from self.nodes.values()
        yield from self.node_types

    def _reaches(self, name: str, amount: float) -> bool:
        return any(_holds(place, {name: amount}) for place in self._places())

    def _most(self, name: str) -> str:
        return _amount(name, max(place.get(name, 0) for place in self._places()))

    def _or_type(self) -> str:
        return " or node type" if self.node_types else ""


def _holds(place: Mapping[str, float], demand: Mapping[str, float]) -> bool:
    return all(
        round(place.get(name, 0) * _UNITS) >= round(amount * _UNITS)
        for name, amount in demand.items()
    )


def _times(place: Mapping[str, float], demand: Mapping[str, float]) -> int:
    """How many such demands a place holds."""
    return min(_shares(name, place.get(name, 0), amount) for name, amount in demand.items())


def _shares(name: str, total: float, amount: float) -> int:
    if name == "GPU" and amount < 1:
        # A share of a GPU is of one: what is left of several does not add up.
        return int(total) * (_UNITS // round(amount * _UNITS))
    return round(total * _UNITS) // round(amount * _UNITS)


def _quantity(name: str, value: Any) -> float:
    """A quantity as Ray counts it, zero or more."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r}; it must be a number")  # noqa: TRY004 - as above
    if not 0 <= value <= _QUANTITY_MAX:  # Also false for what is not a number at all.
        raise ValueError(f"{name} is {value}; it must be from 0 to {_QUANTITY_MAX:.0f}")
    units = round(value * _UNITS)
    if value and not units:
        raise ValueError(f"{name} is {value}; Ray counts no less than {1 / _UNITS}")
    return units / _UNITS


def _gpus(value: Any) -> float:
    quantity = _quantity("num_gpus", value)
    if quantity > 1 and not quantity.is_integer():
        raise ValueError(
            f"num_gpus is {value}; above 1 it must be whole: "
            f"{math.floor(quantity)} or {math.ceil(quantity)}"
        )
    return quantity


def _memory_bytes(value: Any) -> int:
    found = value
    if isinstance(value, str):
        match = _BYTES.fullmatch(value)
        if match is None:
            raise ValueError(f'memory is "{value}"; write bytes as a number, or "512MiB", "2GiB"')
        size = 1024 if match[3] else 1000
        found = float(match[1]) * size ** _POWERS[match[2].upper()]
    if isinstance(found, bool) or not isinstance(found, int | float):
        said = f'memory is {value!r}; write bytes as a number, or "512MiB", "2GiB"'
        raise ValueError(said)  # noqa: TRY004 - as above
    if not 0 <= found <= _MEMORY_BYTES_MAX:  # Also false for what is not a number at all.
        raise ValueError(f"memory is {value}; it must be from 0 to {_MEMORY_BYTES_MAX} bytes")
    return math.ceil(found)


def _custom(name: str, value: Any) -> tuple[str, float]:
    meant = _MISSPELT.get(name.lower()) or next(
        iter(get_close_matches(name, _KNOWN) if name.startswith("num_") else ()), None
    )
    if meant:
        raise ValueError(f"{name} is not a resource; use {meant}")
    if not name.strip() or len(name) > _NAME_LENGTH_MAX or not name.isprintable():
        raise ValueError(
            f"{name[:_NAME_LENGTH_MAX]!r} is not a resource's name; "
            f"use 1 to {_NAME_LENGTH_MAX} printable characters"
        )
    quantity = _quantity(name, value)
    if not quantity:
        raise ValueError(f"{name} is {value}; a custom resource is above 0, or left out")
    return name, quantity


def _plain(quantity: float) -> int | float:
    return int(quantity) if float(quantity).is_integer() else quantity


def _amount(name: str, quantity: float) -> str:
    if name == "memory":
        for size, unit in ((2**30, "GiB"), (2**20, "MiB")):
            if quantity >= size:
                return f"{quantity / size:.4g} {unit} of memory"
        return f"{quantity:.0f} bytes of memory"
    number = f"{quantity:.4f}".rstrip("0").rstrip(".")
    if name in ("CPU", "GPU"):
        return f"{number} {name}{'' if 0 < quantity <= 1 else 's'}"
    return f"{number} of '{name}'"


def _joined(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
