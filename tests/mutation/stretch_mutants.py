"""Guards of stretches: what a task actor does by itself, and who believes it."""

from __future__ import annotations

from tests.mutation.mutant import MEMORY, REDIS, Mutant, mutant

__all__ = ["STRETCH_MUTANTS"]

_CORE = "tests/unit/core/test_stretches.py"
_RUNTIME = "tests/unit/runtime/test_stretches.py"
_HOSTS = "tests/unit/runtime/test_stretches_of_hosts.py"
_PROPERTY = "tests/property/test_stretches.py::test_stretches_obey_all_rules_and_end"
_KEPT_SEEDS = "tests/simulation/test_seeds.py::test_seeds_that_once_found_something"
_TASK_HOST = "harmonia_actors/runtime/task_host.py"

_LOST_TURN = """\
            self._next_attempt(task, TaskStatus.PENDING)
            return
        row.losses"""
_FORGETS = "self.handed_out.discard(task)"

STRETCH_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "stretch, durable",
        "the next task of a stretch starts only if the outcome before it is in the inbox",
        _TASK_HOST,
        "entry if is_kept else None",
        "entry",
        f"{_RUNTIME}::test_what_cannot_be_left_in_the_inbox_ends_the_stretch",
    ),
    mutant(
        "stretch, census",
        "a stretch goes no further when a new owner has asked",
        _TASK_HOST,
        "            if self._stretch.execution_id in mine:\n",
        "            if False:\n",
        f"{_RUNTIME}::test_a_new_owner_ends_the_stretch_between_two_of_its_tasks",
    ),
    mutant(
        "stretch, epoch, memory",
        "no outcome is taken in for an owner that was superseded",
        "persistence/memory_execution.py",
        "if epoch not in (None, self.epoch):",
        "if False:",
        f"{MEMORY}::test_an_entry_for_one_epoch_is_refused_under_the_next",
    ),
    mutant(
        "stretch, epoch, Lua",
        "the same",
        "persistence/lua/append_inbox.lua",
        "if epoch ~= '' and head[3] ~= epoch then return {'epoch', head[3]} end\n",
        "",
        f"{REDIS}::test_an_entry_for_one_epoch_is_refused_under_the_next",
    ),
    mutant(
        "stretch, unread, Lua",
        "a claim never misses an outcome",
        "persistence/lua/append_inbox.lua",
        "if epoch ~= '' and redis.call('XLEN', INBOX .. id) >= outcomes_below then",
        "if false then",
        f"{REDIS}::test_an_entry_for_one_epoch_is_never_behind_what_a_claim_gives",
    ),
    mutant(
        "stretch, claim",
        "a new owner takes in what task actors have left before it says what is lost",
        "harmonia_actors/core/execution.py",
        "            self._resume_settled(settled)\n",
        "",
        f"{_CORE}::test_outcomes_in_the_inbox_come_before_all_else",
        _PROPERTY,
    ),
    mutant(
        "stretch, loss",
        "so does the owner of a task actor that has died",
        "harmonia_actors/runtime/driver.py",
        "            self.take_in(await",
        "            tuple(await",
        f"{_HOSTS}::test_what_a_dead_worker_has_left_counts_before_its_loss",
    ),
    mutant(
        "stretch, overtaking",
        "and no stop of it overtakes them",
        "harmonia_actors/runtime/driver.py",
        "return self.execution.may_lead_on(task)",
        "return False",
        f"{_HOSTS}::test_a_stop_does_not_overtake_what_a_dead_worker_has_left",
    ),
    mutant(
        "stretch, twice",
        "what comes back twice is handed out once",
        "harmonia_actors/runtime/dispatch_queues.py",
        "report.returned_from == (order.epoch, order.number)",
        "report.returned_from[0] == order.epoch",
        f"{_RUNTIME}::test_what_comes_back_twice_is_given_out_once",
    ),
    mutant(
        "stretch, numbers",
        "what a worker that is thought dead may still start gets another number",
        "harmonia_actors/core/attempts.py",
        _LOST_TURN,
        _LOST_TURN.replace("self._next_attempt(task, TaskStatus.PENDING)", _FORGETS),
        f"{_CORE}::test_a_death_loses_the_one_whose_turn_it_was_and_gives_the_others_new_numbers",
    ),
    mutant(
        "stretch, turns",
        "nothing of a task is told before the outcome of the one before it",
        "harmonia_actors/runtime/turns.py",
        "            if former is not None and not isinstance(report.stimulus, _UNSTARTED):\n",
        "            if False:\n",
        f"{_RUNTIME}::test_what_comes_too_early_waits_for_the_outcome_before_it",
        _KEPT_SEEDS,
    ),
    mutant(
        "stretch, stop",
        "a stretch goes no further when any of it is to stop",
        _TASK_HOST,
        "            if attempt[0] == self._stretch.execution_id:\n",
        "            if False:\n",
        f"{_RUNTIME}::test_a_stop_of_what_has_ended_ends_the_stretch",
    ),
    mutant(
        "stretch, reach",
        "no more is handed out in vain than is run",
        "harmonia_actors/core/attempts.py",
        "        self._learn_reach(went_on=False)\n",
        "",
        f"{_CORE}::test_no_more_is_handed_out_in_vain_than_is_run",
    ),
    mutant(
        "stretch, errors",
        "whatever goes wrong on the way to the inbox, what has been made is told",
        _TASK_HOST,
        "        except Exception:\n            # What has been made",
        "        except KeyError:\n            # What has been made",
        f"{_RUNTIME}::test_whatever_goes_wrong_with_the_inbox_ends_the_stretch_only",
    ),
)
