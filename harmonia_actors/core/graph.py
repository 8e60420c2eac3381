"""The shape of a workflow: who waits for whom, in which order, and who comes before whom.

Tasks are numbers here, in the order of definition. Everything is iterative: a chain of 10,000
tasks must not exhaust the stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

__all__ = ["Graph", "find_cycle"]


@dataclass(frozen=True)
class Graph:
    """An acyclic graph of tasks. `parents[i]` and `children[i]` are sorted and without repeats."""

    parents: tuple[tuple[int, ...], ...]
    children: tuple[tuple[int, ...], ...]
    _ancestors: dict[str, list[int]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def build(cls, parents: Sequence[Sequence[int]]) -> Graph:
        """From the dependencies of each task; they must not hold a cycle (`find_cycle`)."""
        cleaned = tuple(tuple(sorted(set(of_task))) for of_task in parents)
        children: list[list[int]] = [[] for _ in cleaned]
        for task, of_task in enumerate(cleaned):
            for parent in of_task:
                children[parent].append(task)
        return cls(cleaned, tuple(tuple(of_task) for of_task in children))

    def __len__(self) -> int:
        return len(self.parents)

    def sinks(self) -> list[int]:
        """Tasks that no other task depends on."""
        return [task for task, children in enumerate(self.children) if not children]

    def order(self) -> list[int]:
        """A topological order; among tasks that are free, the order of definition decides."""
        waiting = [len(of_task) for of_task in self.parents]
        free = [task for task, count in enumerate(waiting) if count == 0]
        heapify(free)
        order = []
        while free:
            task = heappop(free)
            order.append(task)
            for child in self.children[task]:
                waiting[child] -= 1
                if waiting[child] == 0:
                    heappush(free, child)
        return order

    def is_ancestor(self, candidate: int, task: int) -> bool:
        """True if `task` can only start after `candidate` has completed."""
        if candidate in self.parents[task]:
            return True
        return bool(self._ancestor_bits()[task] >> candidate & 1)

    def _ancestor_bits(self) -> list[int]:
        """Per task a bit set of all its ancestors; made once, when first needed."""
        if "bits" not in self._ancestors:
            bits = [0] * len(self)
            for task in self.order():
                for parent in self.parents[task]:
                    bits[task] |= bits[parent] | 1 << parent
            self._ancestors["bits"] = bits
        return self._ancestors["bits"]


def find_cycle(parents: Sequence[Sequence[int]]) -> list[int] | None:
    """Tasks of one cycle, each waiting for the next, the first repeated at the end; or None."""
    waiting = [len(set(of_task)) for of_task in parents]
    children: list[list[int]] = [[] for _ in parents]
    for task, of_task in enumerate(parents):
        for parent in set(of_task):
            children[parent].append(task)
    free = [task for task, count in enumerate(waiting) if count == 0]
    done = 0
    while free:
        task = free.pop()
        done += 1
        for child in children[task]:
            waiting[child] -= 1
            if waiting[child] == 0:
                free.append(child)
    if done == len(waiting):
        return None
    # Every task that is left waits for another one that is left: following them must repeat.
    task = next(index for index, count in enumerate(waiting) if count > 0)
    seen: dict[int, int] = {}
    path: list[int] = []
    while task not in seen:
        seen[task] = len(path)
        path.append(task)
        task = next(parent for parent in parents[task] if waiting[parent] > 0)
    return [*path[seen[task] :], task]
