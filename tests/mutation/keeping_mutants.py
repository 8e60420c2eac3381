"""Guards of what is kept and given on: suspects, holders, garbage, limits."""

from __future__ import annotations

from tests.mutation.mutant import MEMORY, REDIS, Mutant, mutant

__all__ = ["KEEPING_MUTANTS"]

_LUA = "persistence/lua"
_UNIT = "tests/unit/runtime"
_BLOBS = "persistence/blobs.py"
_POWER_CUT = "tests/unit/test_blobs.py::test_a_blob_that_was_put_survives_a_power_cut"
_ALONE = "test_each_suspect_gets_an_owner_of_its_own_until_it_is_calm"
_NEXT = "test_nothing_comes_between_a_calm_and_the_next_suspect"
_HELD = "test_a_checkpoint_holds_the_outputs_of_its_execution"
_FULL = "test_beyond_the_limit_nothing_is_created"

KEEPING_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "suspects, memory",
        "what may have killed an owner comes back alone",
        "persistence/memory_store.py",
        "            self._roster.isolate(owner, suspect.execution_id)\n",
        "",
        f"{MEMORY}::{_ALONE}",
    ),
    mutant(
        "suspects, Lua",
        "the same",
        f"{_LUA}/claim_next.lua",
        "    redis.call('HSET', ISOLATED, owner, suspect)\n",
        "",
        f"{REDIS}::{_ALONE}",
    ),
    mutant(
        "calm, memory",
        "nothing comes between a suspect that is calm and the next one",
        "persistence/memory_store.py",
        "        if is_alone and self._suspects:\n            return True\n",
        "",
        f"{MEMORY}::{_NEXT}",
    ),
    mutant(
        "calm, Lua",
        "the same",
        f"{_LUA}/calm.lua",
        "if is_alone and redis.call('ZCARD', SUSPECTS) > 0 then return 1 end\n",
        "",
        f"{REDIS}::{_NEXT}",
    ),
    mutant(
        "crashes, memory",
        "the deaths of owners are counted, so that there is an end to them",
        "persistence/memory_execution.py",
        "        self.crashes += 1\n",
        "",
        f"{MEMORY}::test_crashes_add_up_and_a_calm_ends_the_row",
    ),
    mutant(
        "crashes, Lua",
        "the same",
        f"{_LUA}/part_queues.lua",
        "  redis.call('HINCRBY', key, 'c', 1)\n",
        "",
        f"{REDIS}::test_crashes_add_up_and_a_calm_ends_the_row",
    ),
    mutant(
        "holders, memory",
        "what a checkpoint needs stays when its execution expires",
        "persistence/memory_checkpoints.py",
        "        self._holdings.hold(held)\n",
        "",
        f"{MEMORY}::{_HELD}",
    ),
    mutant(
        "holders, Lua",
        "the same",
        f"{_LUA}/part_copies.lua",
        "  hold(holds)\n",
        "",
        f"{REDIS}::{_HELD}",
    ),
    mutant(
        "constants, Lua",
        "what checkpoints share with their execution goes with the last of them",
        f"{_LUA}/part_holdings.lua",
        "OUTPUTS .. id, CONSTANTS .. id)",
        "OUTPUTS .. id)",
        "tests/contract/test_redis_retention.py"
        "::test_no_key_is_left_of_what_has_expired_and_is_held_by_nobody",
    ),
    mutant(
        "own checkpoints' epoch, memory",
        "a former owner takes no checkpoint any more",
        "persistence/memory_store.py",
        "if execution.epoch != checkpoint.epoch:",
        "if False:",
        f"{MEMORY}::test_another_epoch_takes_none",
    ),
    mutant(
        "own checkpoints' epoch, Lua",
        "the same",
        f"{_LUA}/take_checkpoint.lua",
        "if head[1] ~= ARGV[3] then return {'epoch', head[1]} end\n",
        "",
        f"{REDIS}::test_another_epoch_takes_none",
    ),
    mutant(
        "own checkpoints' end, Lua",
        "after the end no owner takes a checkpoint",
        f"{_LUA}/take_checkpoint.lua",
        "if head[3] then return {'ended', head[5]} end\n",
        "",
        f"{REDIS}::test_none_is_taken_after_the_end",
    ),
    mutant(
        "own checkpoints trimmed, memory",
        "of those that owners took, only the last ones stay",
        "persistence/memory_store.py",
        "        self._checkpoints.trim(execution.execution_id, checkpoint.kept)\n",
        "",
        f"{MEMORY}::test_only_the_last_ones_stay",
    ),
    mutant(
        "own checkpoints trimmed, Lua",
        "the same",
        f"{_LUA}/take_checkpoint.lua",
        "trim_own_checkpoints(id, tonumber(ARGV[5]))\n",
        "",
        f"{REDIS}::test_only_the_last_ones_stay",
    ),
    mutant(
        "own checkpoints expire, Lua",
        "what owners took keeps nothing beyond its execution",
        f"{_LUA}/expire.lua",
        "  trim_own_checkpoints(id, 0)\n",
        "",
        f"{REDIS}::test_alone_it_keeps_nothing_beyond_its_execution",
    ),
    mutant(
        "restored from, memory",
        "what an execution was restored from stays as long as it does",
        "persistence/memory_store.py",
        "        self._holdings.hold(new.holds)\n",
        "",
        f"{MEMORY}::test_an_execution_may_hold_what_others_left",
    ),
    mutant(
        "restored from, Lua",
        "the same",
        f"{_LUA}/create_execution.lua",
        "hold(holds)\nredis.call('INCR', LIVE)",
        "redis.call('INCR', LIVE)",
        f"{REDIS}::test_an_execution_may_hold_what_others_left",
    ),
    mutant(
        "blob, bytes",
        "the bytes of a large output are on disk before it has its name",
        _BLOBS,
        "        os.fsync(file.fileno())\n",
        "",
        _POWER_CUT,
    ),
    mutant(
        "blob, name",
        "the name of a large output is on disk before anything refers to it",
        _BLOBS,
        "            _sync_directory(path.parent)\n",
        "",
        _POWER_CUT,
    ),
    mutant(
        "garbage, memory",
        "what lies outside the store is on a list until somebody has removed it",
        "persistence/memory_retention.py",
        "            self._garbage[execution_id] = self._now_ms()\n",
        "",
        f"{MEMORY}::test_garbage_stays_until_it_is_acknowledged",
    ),
    mutant(
        "garbage, Lua",
        "the same",
        f"{_LUA}/part_holdings.lua",
        "  redis.call('ZADD', GARBAGE, now_ms(), id)\n",
        "",
        f"{REDIS}::test_garbage_stays_until_it_is_acknowledged",
    ),
    mutant(
        "admission, memory",
        "beyond the limit nothing is created",
        "persistence/memory_store.py",
        "if live_max is not None and self._lives.live >= live_max:",
        "if False:",
        f"{MEMORY}::{_FULL}",
    ),
    mutant(
        "admission, Lua",
        "the same",
        f"{_LUA}/create_execution.lua",
        "if tonumber(redis.call('GET', LIVE) or 0) >= tonumber(ARGV[4]) then return {'full'} end\n",
        "",
        f"{REDIS}::{_FULL}",
    ),
    mutant(
        "unknown names",
        "the janitor removes only what the store does not know",
        "harmonia_actors/runtime/janitor.py",
        "            unknown = [name for name in part if name not in known]\n",
        "            unknown = list(part)\n",
        f"{_UNIT}/test_janitor.py::test_the_sweep_finds_what_the_store_does_not_know",
    ),
    mutant(
        "young names",
        "the janitor leaves what is young: its execution's commit may be under way",
        "harmonia_actors/runtime/places.py",
        "changed_s is None or changed_s > latest_s:",
        "False:",
        f"{_UNIT}/test_janitor.py::test_the_sweep_leaves_what_is_young_and_what_is_not_ours",
    ),
    mutant(
        "room on disk",
        "the embedded store is asked to give back the disk",
        "harmonia_actors/runtime/janitor.py",
        "            await self._compact()\n",
        "",
        f"{_UNIT}/test_janitor.py::test_room_is_made_on_the_stores_disk_once_nothing_more_is_due",
    ),
)
