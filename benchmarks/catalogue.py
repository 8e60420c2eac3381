"""The systems that are compared and the workloads that they are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from benchmarks.workloads import (
    w1_fibonacci,
    w2_granularity,
    w3_fan,
    w4_chain,
    w5_recorded,
    w6_requests,
    w7_concurrent,
)

__all__ = ["CLASSES", "OURS", "SHORT", "SYSTEMS", "WORKLOADS", "Entry"]

OURS: Final = "harmonia"

CLASSES: Final = {
    "D0": "nothing survives",
    "D1": "a broker in memory",
    "D2": "on disk, but not before it is acknowledged: the last second or so may be lost",
    "D3": "on disk before it is acknowledged",
}


@dataclass(frozen=True)
class Entry:
    """A system: what it is run by and what has to be known of it."""

    name: str
    title: str
    #: Module of `benchmarks.systems`, and its arguments.
    module: str
    durability: str
    note: str
    arguments: tuple[str, ...] = ()
    #: Folder of `benchmarks/peers` with its requirements; empty: it runs in our own environment.
    peer: str = ""
    #: Most tasks of one job: slow systems get smaller sizes, which the case says.
    reach: int = 20_000


SYSTEMS: Final = (
    Entry(
        OURS,
        "Harmonia",
        "harmonia",
        "D3",
        "`harmonia up` with its embedded store (`appendfsync always`), by REST.",
    ),
    Entry(
        "harmonia-everysec",
        "Harmonia, fsync each second",
        "harmonia",
        "D2",
        "The same on a store with `appendfsync everysec`.",
        arguments=("everysec",),
        reach=10_000,
    ),
    Entry(
        "harmonia-nodes",
        "Harmonia, three nodes",
        "harmonia_nodes",
        "D3",
        "The same on a Ray cluster of three raylets with one CPU each, all on this machine, which "
        "has not three cores: what work across nodes costs, not what more nodes give.",
        reach=10_000,
    ),
    Entry(
        "ray",
        "raw Ray",
        "raw_ray",
        "D0",
        "Tasks as remote calls, edges as object references, nothing stored: the floor.",
    ),
    Entry(
        "dask",
        "dask.distributed",
        "dask_distributed",
        "D0",
        "LocalCluster, two processes of one thread, one `submit` per task.",
        peer="dask",
    ),
    Entry(
        "celery",
        "Celery",
        "celery_redis",
        "D1",
        "Two worker processes; broker and results in a Valkey without persistence.",
        peer="celery",
        reach=2_000,
    ),
    Entry(
        "dbos",
        "DBOS",
        "dbos_sqlite",
        "D3",
        "Its default store, SQLite (rollback journal, synchronous FULL); a library, so its steps "
        "run in the process of the client and there is no HTTP in between.",
        peer="dbos",
        reach=1_000,
    ),
    Entry(
        "prefect",
        "Prefect",
        "prefect_flows",
        "D2",
        "Its own server on SQLite (WAL, synchronous NORMAL); states are recorded, a flow is not "
        "resumed; tasks run in threads of the client's process.",
        peer="prefect",
        reach=100,
    ),
)

#: What `make bench` runs: we ourselves, the floor, and one peer that is as durable.
SHORT: Final = (OURS, "ray", "dbos")

WORKLOADS: Final = (
    w1_fibonacci.WORKLOAD,
    w2_granularity.WORKLOAD,
    w3_fan.WORKLOAD,
    w4_chain.WORKLOAD,
    w5_recorded.WORKLOAD,
    w6_requests.WORKLOAD,
    w7_concurrent.WORKLOAD,
)
