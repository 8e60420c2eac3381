"""The by-hand tools that judge lost calls and overload: they must see what is wrong."""

from __future__ import annotations

import json
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.overload import Offered, problems_of
from tests.chaos.rpc_failures import CALLS, WAYS, environment, lost_calls

MB = 1_000_000


def runs() -> list[Offered]:
    """Ten may be live, a hundred are offered."""
    many = [str(number) for number in range(100)]
    return [
        Offered("once", 10, many[:10], Counter({"202": 10}), peak=500 * MB, rest=450 * MB),
        Offered(
            "too many",
            100,
            many[:20],
            Counter({"202": 20, "429": 80}),
            set(range(80)),
            peak=510 * MB,
            rest=455 * MB,
        ),
        Offered(
            "patient",
            100,
            many,
            Counter({"202": 100, "429": 900}),
            set(range(90)),
            peak=520 * MB,
            rest=460 * MB,
        ),
    ]


def test_an_overload_that_is_borne_is_right() -> None:
    assert problems_of(runs(), capacity=10, most=50 * MB) == []


@pytest.mark.parametrize(
    ("run", "change", "word"),
    [
        (0, {"accepted": []}, "0 were accepted of 10"),
        (1, {"accepted": []}, "fewer were accepted"),
        (1, {"refused": set()}, "only 0 were refused"),
        (1, {"answers": Counter({"429 without Retry-After": 3})}, "3 answers were 429 without"),
        (1, {"answers": Counter({"503": 1})}, "1 answers were 503"),
        (1, {"peak": 551 * MB}, "51 MB more at its worst"),
        (1, {"peak": 0}, "nobody has looked at the memory"),
        (2, {"rest": 501 * MB}, "51 MB more afterwards"),
        (2, {"accepted": ["0"]}, "1 were accepted of 100"),
    ],
)
def test_what_is_wrong_with_it_is_seen(run: int, change: dict[str, Any], word: str) -> None:
    offered = runs()
    for name, value in change.items():
        setattr(offered[run], name, value)
    (found,) = problems_of(offered, capacity=10, most=50 * MB)
    assert word in found


@pytest.mark.parametrize(("kind", "way"), [*product(CALLS, WAYS)])
def test_each_cell_loses_its_calls_in_one_way(kind: str, way: str) -> None:
    failures = json.loads(environment(CALLS[kind], way)["RAY_testing_rpc_failure"])
    for name in CALLS[kind].names:
        assert failures[name] == {"num_failures": -1, WAYS[way]: CALLS[kind].percent}


def test_lost_calls_are_counted_by_what_ray_has_logged(tmp_path: Path) -> None:
    lines = (
        "[2026-01-01 I] rpc_chaos.h: Inject RPC request failure for A.grpc_client.PushTask",
        "[2026-01-01 I] rpc_chaos.h: Inject RPC response failure for ray::rpc::B.grpc_client.Poll",
        "[2026-01-01 I] rpc_chaos.h: Inject RPC response failure while request in flight for "
        "A.grpc_client.PushTask",
        "nothing of the kind",
    )
    (tmp_path / "session").mkdir()
    (tmp_path / "session" / "worker.log").write_text("\n".join(lines))
    (tmp_path / "session" / "raylet.out").write_text(lines[0])
    assert lost_calls(tmp_path) == {"PushTask": 3, "Poll": 1}
