"""When all executions have expired, the store's memory and disk are back where they began."""

from __future__ import annotations

from pathlib import Path

import pytest

from persistence.redis_compaction import is_worth_it
from tests.support.after_expiry import ALLOCATOR_BYTES, DISK_BYTES, live_and_expire

COUNT = 300

WORTH_IT = {
    "aof_enabled": "1",
    "aof_rewrite_in_progress": "0",
    "aof_rewrite_scheduled": "0",
    "rdb_bgsave_in_progress": "0",
    "loading": "0",
    "aof_current_size": "5000",
    "used_memory": "4999",
}


async def test_keys_memory_and_disk_return_to_where_they_began(tmp_path: Path) -> None:
    life = await live_and_expire(tmp_path, COUNT)
    begin, full, end = life.begin, life.full, life.end
    # There was something to get rid of.
    assert full.keys >= begin.keys + 4 * COUNT
    assert full.outside == begin.outside + COUNT
    assert full.memory_bytes > begin.memory_bytes + ALLOCATOR_BYTES
    assert full.disk_bytes > begin.disk_bytes + 10 * DISK_BYTES

    assert (end.keys, end.outside) == (begin.keys, begin.outside)
    assert end.memory_bytes <= begin.memory_bytes + ALLOCATOR_BYTES
    assert end.disk_bytes <= begin.disk_bytes + DISK_BYTES


@pytest.mark.parametrize(
    ("changed", "bytes_min", "expected"),
    [
        ({}, 5000, True),
        ({}, 5001, False),
        ({"used_memory": "5000"}, 0, False),
        ({"aof_enabled": "0"}, 0, False),
        ({"aof_rewrite_in_progress": "1"}, 0, False),
        ({"aof_rewrite_scheduled": "1"}, 0, False),
        ({"rdb_bgsave_in_progress": "1"}, 0, False),
        ({"loading": "1"}, 0, False),
    ],
)
def test_a_file_is_written_anew_once_it_is_larger_than_what_there_is(
    changed: dict[str, str], bytes_min: int, expected: bool
) -> None:
    assert is_worth_it({**WORTH_IT, **changed}, bytes_min) is expected


def test_a_server_that_says_nothing_is_left_alone() -> None:
    assert is_worth_it({}, 0) is False
