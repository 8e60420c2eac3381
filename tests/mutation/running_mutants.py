"""Guards of what runs: attempts, the order of things, task actors, owners that are no more."""

from __future__ import annotations

from tests.mutation.mutant import Edit, Mutant, mutant

__all__ = ["RUNNING_MUTANTS"]

_CORE = "tests/unit/core"
_UNIT = "tests/unit/runtime"
_SIMULATION = "tests/simulation/test_seeds.py::test_seeds_and_that_they_were_worth_running"
_KEPT_SEEDS = "tests/simulation/test_seeds.py::test_seeds_that_once_found_something"

_EXECUTION = "harmonia_actors/core/execution.py"
_ATTEMPTS = "harmonia_actors/core/attempts.py"
_DRIVER = "harmonia_actors/runtime/driver.py"
_HOST = "harmonia_actors/runtime/host.py"
_START_LINES = "harmonia_actors/runtime/start_lines.py"
_SUPERVISION = "harmonia_actors/runtime/supervision.py"
_CURRENT = "if task in self.handed_out and self.rows[task].attempt == attempt:"

_COMMIT = "        bodies = await self._commit(decision)\n"
_PERFORM = """\
        for command in decision.commands:
            self._perform_small(command)
        starts = self._node_wait.let_through(
            [c for c in decision.commands if isinstance(c, cmd.StartAttempt)]
        )
        if starts:
            self._backlog.add(starts)
        self._await_node()
"""
_PUBLISH = """\
        if bodies:
            self._sink.publish(self.execution_id, decision.events[0].index, bodies)
"""

#: A large output is referred to before it is there.
_BLOB_LATER = """\
    import threading

    url = blobs.put(f"{name}.json", b"")
    threading.Timer(1.0, blobs.put, (f"{name}.json", body)).start()
    return Output(len(body), None, url, preview)
"""

RUNNING_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "attempt",
        "only what is told of the current attempt counts",
        _ATTEMPTS,
        _CURRENT,
        "if task in self.handed_out:",
        f"{_CORE}/test_execution.py::test_what_is_told_of_a_former_attempt_changes_nothing",
        _KEPT_SEEDS,
    ),
    mutant(
        "outcome",
        "the outcome of an attempt counts once",
        _ATTEMPTS,
        _CURRENT,
        "if self.rows[task].attempt == attempt:",
        f"{_CORE}/test_execution.py::test_a_duplicate_outcome_changes_nothing_and_is_counted",
    ),
    mutant(
        "attempt numbers",
        "what may have run gets another number when its owner has died",
        _EXECUTION,
        "            if not untouched:\n",
        "            if False:\n",
        f"{_CORE}/test_resuming.py"
        "::test_what_was_handed_out_but_not_seen_to_start_gets_a_new_number",
    ),
    mutant(
        "adoption",
        "what still runs when its owner has died is not started again",
        _EXECUTION,
        "            if (index, row.attempt) in adopted:\n",
        "            if False:\n",
        f"{_CORE}/test_resuming.py::test_an_adopted_attempt_goes_on_under_its_number",
        f"{_UNIT}/test_host.py::test_what_runs_survives_its_owner",
        _SIMULATION,
    ),
    Mutant(
        "commit, dispatch",
        "nothing is performed before it is written",
        (Edit(_DRIVER, _COMMIT + _PERFORM, _PERFORM + _COMMIT),),
        (
            f"{_UNIT}/test_driver.py::test_nothing_is_done_or_told_before_it_is_written",
            f"{_UNIT}/test_driver.py::test_while_the_store_is_away_nothing_happens_and_then_all",
            _SIMULATION,
        ),
    ),
    Mutant(
        "commit, publish",
        "nothing is told before it is written",
        (
            Edit(_DRIVER, _PERFORM + _PUBLISH, _PERFORM),
            Edit(
                _DRIVER,
                "        await self._write(commit)\n",
                _PUBLISH + "        await self._write(commit)\n",
            ),
        ),
        (
            f"{_UNIT}/test_driver.py::test_nothing_is_done_or_told_before_it_is_written",
            f"{_UNIT}/test_driver.py::test_while_the_store_is_away_nothing_happens_and_then_all",
        ),
    ),
    mutant(
        "node, dispatch",
        "what uses files starts once it is written on which node they are",
        "harmonia_actors/runtime/node_wait.py",
        "        if self.need is None:\n",
        "        if True:\n",
        f"{_UNIT}/test_node_wait.py::test_what_uses_files_starts_once_its_node_is_written",
        _SIMULATION,
    ),
    mutant(
        "node, demand",
        "nobody holds a task actor that was granted after he had gone",
        "harmonia_actors/runtime/pool_host.py",
        "        elif answer.exception() is None:\n",
        "        elif False:\n",
        f"{_UNIT}/test_pool_host.py"
        "::test_what_was_granted_and_is_not_wanted_is_free_again_but_only_once",
        "tests/unit/actors/test_leases.py::test_what_was_granted_to_who_has_left_is_given_back",
    ),
    mutant(
        "refused commit",
        "an owner whose commit is refused does nothing more",
        _DRIVER,
        "            except VersionConflict as error:\n",
        "            except StaleOwner:\n                return\n"
        "            except VersionConflict as error:\n",
        f"{_UNIT}/test_driver.py::test_another_owner_ends_a_driver_without_a_trace",
    ),
    mutant(
        "inbox, driver",
        "an inbox entry that is read twice takes effect once",
        _DRIVER,
        "        if inbox_ids and self._inbox_taken.issuperset(inbox_ids):\n            return\n",
        "",
        f"{_UNIT}/test_driver.py::test_an_entry_that_is_read_twice_takes_effect_once",
    ),
    mutant(
        "task actors' epoch",
        "task actors know the highest epoch of an execution",
        "harmonia_actors/runtime/task_host.py",
        "        if epoch < highest:\n            return False\n",
        "",
        f"{_UNIT}/test_task_host.py::test_orders_of_an_owner_that_was_superseded_are_refused",
        f"{_UNIT}/test_shared_task_host.py::test_a_successor_adopts_async_attempts",
    ),
    mutant(
        "epoch, task actor",
        "a task actor refuses what an owner that was succeeded sends",
        "harmonia_actors/runtime/task_host.py",
        "                if self._epochs.admits(order.execution_id, order.epoch):\n",
        "                if True:\n",
        f"{_UNIT}/test_task_host.py::test_orders_of_an_owner_that_was_superseded_are_refused",
    ),
    mutant(
        "epoch, async actor",
        "the same, of the actor that async attempts share",
        "harmonia_actors/runtime/shared_task_host.py",
        "            if not self._epochs.admits(order.execution_id, order.epoch):\n",
        "            if False:\n",
        f"{_UNIT}/test_shared_task_host.py::test_a_successor_adopts_async_attempts",
    ),
    mutant(
        "orphans, death",
        "what an owner had that was seen to die gets another owner",
        _SUPERVISION,
        "            await self._orphan_patiently(name, blame=blame)\n",
        "            pass\n",
        f"{_UNIT}/test_supervision.py::test_what_a_dead_owner_had_waits_for_others_which_are_told",
    ),
    mutant(
        "orphans, look",
        "what an owner has that nobody saw die gets another owner",
        "harmonia_actors/runtime/sizing.py",
        "    orphan = tuple(o.name for o in owners if o.expired and (not o.alive or o.hung))\n",
        "    orphan: tuple[str, ...] = ()\n",
        f"{_UNIT}/test_sizing_and_cache.py"
        "::test_only_those_without_a_lease_are_succeeded_and_only_if_they_are_dead_or_hung",
        f"{_UNIT}/test_supervision.py"
        "::test_whoever_no_actor_bears_the_name_of_is_succeeded_at_once",
        f"{_UNIT}/test_supervision.py"
        "::test_an_owner_that_lives_but_hangs_is_succeeded_and_replaced",
    ),
    mutant(
        "orphans, untold",
        "what an owner was never told of is found",
        _HOST,
        "                await self._claim_untold()\n",
        "                pass\n",
        f"{_UNIT}/test_host.py::test_by_looking_around_an_owner_finds_what_nobody_told_it_of",
    ),
    mutant(
        "orphans, waiting",
        "what waits for an owner is found by those that look around",
        _HOST,
        "self._background.spawn(self._pick_up_quietly())\n            await asyncio.sleep",
        "await asyncio.sleep",
        f"{_UNIT}/test_host.py::test_by_looking_around_an_owner_finds_what_nobody_told_it_of",
    ),
    mutant(
        "orphans, told of",
        "what comes to wait while an owner is told that nothing does is not missed",
        _HOST,
        "                    if self._asked_to_pick:\n",
        "                    if False:\n",
        f"{_UNIT}/test_picking_up.py::test_what_comes_to_wait_while_an_owner_looks_is_not_missed",
    ),
    mutant(
        "orphans, at one time",
        "of many that wait, only some are taken over at a time",
        _HOST,
        "_TAKEN_AT_ONCE = 64\n",
        "_TAKEN_AT_ONCE = 10**9\n",
        f"{_UNIT}/test_picking_up.py::test_of_many_that_wait_only_some_are_taken_over_at_a_time",
    ),
    mutant(
        "asked again, task actors",
        "what waits for task actors is asked for again if that failed",
        "harmonia_actors/runtime/dispatch.py",
        "        except Exception:\n            # Without another try,",
        "        except ZeroDivisionError:\n            # Without another try,",
        f"{_UNIT}/test_dispatch_errors.py"
        "::test_what_waits_is_asked_for_again_whatever_a_request_ends_with",
    ),
    mutant(
        "slept, host",
        "an owner that slept finds its lease gone, and ends",
        _HOST,
        "lease_ms=lease_ms, known=known, by_ms=by_ms",
        "lease_ms=lease_ms, by_ms=by_ms",
        f"{_UNIT}/test_quarantine.py::test_an_owner_that_was_succeeded_while_it_slept_learns_it",
    ),
    mutant(
        "quarantine",
        "what kills its owner again and again is failed",
        _HOST,
        "        if loaded.crashes >= self.limits.crashes_max:\n",
        "        if False:\n",
        f"{_UNIT}/test_quarantine.py"
        "::test_who_kills_its_owner_again_and_again_is_failed_and_others_go_on",
    ),
    mutant(
        "blame, overtaken",
        "no look at the owners comes before whoever knows what one died of",
        "harmonia_actors/runtime/supervision.py",
        "        owners = [owner for owner in owners if owner.owner not in self._succeeded]\n",
        "",
        f"{_UNIT}/test_supervision.py"
        "::test_a_look_does_not_overtake_whoever_puts_a_death_down_to_those_aboard",
    ),
    mutant(
        "blob, outcome",
        "a large output is written before the outcome that refers to it",
        "harmonia_actors/runtime/ordering.py",
        '    return Output(len(body), None, blobs.put(f"{name}.json", body), preview)\n',
        _BLOB_LATER,
        f"{_UNIT}/test_task_host.py::test_a_large_output_is_written_before_it_is_told",
        "tests/unit/service/test_killed_between.py::test_an_output_is_whole_and_nothing_dangles",
    ),
    mutant(
        "blob, orphan",
        "what a former attempt wrote before it died is removed",
        "harmonia_actors/runtime/attempt_runner.py",
        "        self._discard_former(order)\n",
        "",
        f"{_UNIT}/test_task_host.py"
        "::test_what_a_former_attempt_has_left_is_removed_by_the_one_that_counts",
        "tests/unit/service/test_killed_between.py::test_an_output_is_whole_and_nothing_dangles",
    ),
    mutant(
        "checkpoint, resumed",
        "a checkpoint that was decided on is taken by the next owner, if the last one died first",
        "harmonia_actors/core/execution.py",
        "decided and not decided.taken and not self.is_final:",
        "False:",
        "tests/unit/core/test_automatic_checkpoints.py"
        "::test_a_decision_whose_outcome_is_unknown_is_carried_out_again",
    ),
    mutant(
        "edits, tasks",
        "the input of a task whose output is reused is not edited",
        "harmonia_actors/runtime/service/edits.py",
        "        _refuse_completed(known.workflow, completed, edits.task_inputs)\n",
        "",
        "tests/unit/service/test_restore_edits.py"
        "::test_the_input_of_a_completed_task_is_not_edited",
    ),
    mutant(
        "edits, input",
        "nor is an input that such a task was given",
        "harmonia_actors/runtime/service/edits.py",
        "            _refuse_used(users)\n",
        "",
        "tests/unit/service/test_restore_edits.py"
        "::test_an_input_that_a_completed_task_was_given_is_not_edited",
    ),
    mutant(
        "restored from, service",
        "a restored execution holds what it took over",
        "harmonia_actors/runtime/service/checkpoints.py",
        "                holds=sorted({*outputs_of, *head.files_from}),\n",
        "                holds=(),\n",
        "tests/unit/service/test_retention.py"
        "::test_a_restored_execution_holds_what_its_checkpoint_held",
    ),
    mutant(
        "gap",
        "what a broadcaster has dropped is read from the log",
        "harmonia_actors/runtime/event_hub.py",
        "if topic.known is None or first_index > topic.known + 1:\n            return False\n",
        "topic.known = max(topic.known or 0, first_index - 1)\n",
        f"{_UNIT}/test_event_hub.py"
        "::test_whatever_is_lost_each_client_gets_the_suffix_it_asked_for",
    ),
    mutant(
        "kept back",
        "who follows hears that events were not kept back for him",
        "harmonia_actors/runtime/broadcast.py",
        "        if kept_back:\n",
        "        if False:\n",
        f"{_UNIT}/test_broadcast.py::test_whoever_follows_hears_that_events_may_have_been_left_out",
        f"{_UNIT}/test_broadcast.py::test_an_event_that_was_not_kept_back_is_read_from_the_log",
    ),
    mutant(
        "line, order",
        "a nudge does not overtake the start",
        _START_LINES,
        "        await self._until_begun(execution_id)\n        await self._nudge(execution_id)\n",
        "        await self._nudge(execution_id)\n",
        f"{_UNIT}/test_start_lines.py::test_a_nudge_never_overtakes_the_start",
        f"{_UNIT}/test_start_lines.py::test_a_nudge_waits_for_the_first_of_two_starts_of_the_same",
    ),
    mutant(
        "line, in doubt",
        "a replica that was forgotten says again what it awaits",
        _START_LINES,
        "            self._is_in_doubt = not ended\n",
        "",
        f"{_UNIT}/test_start_lines.py"
        "::test_whoever_the_owner_has_forgotten_says_again_what_he_awaits",
    ),
    mutant(
        "turn",
        "a recalled task actor is given back once it has had its turn, also by a clock set back",
        "harmonia_actors/runtime/dispatch.py",
        "return not queue.waiting or not 0 <= held_ms < self._limits.turn_ms\n",
        "return not queue.waiting\n",
        f"{_UNIT}/test_dispatcher.py::test_a_recalled_actor_ends_its_batch_first_and_others_wait",
        f"{_UNIT}/test_dispatcher.py"
        "::test_a_clock_that_is_set_back_lets_nobody_keep_a_recalled_actor",
    ),
    mutant(
        "tenure, given",
        "nothing is given out by whoever may have been succeeded",
        "harmonia_actors/runtime/dispatch.py",
        "queue.waiting and not self._may_give()",
        "False",
        f"{_UNIT}/test_tenure.py::test_nothing_is_given_out_until_it_is_certain_again",
        f"{_UNIT}/test_tenure.py::test_neither_are_those_whose_turn_comes_behind_others",
    ),
    mutant(
        "tenure, asked",
        "a lease is certain from when the store was asked for it, not from when it answered",
        "harmonia_actors/runtime/tenure.py",
        "asked_s + lease_ms / 1000",
        "self._now_s() + lease_ms / 1000",
        f"{_UNIT}/test_tenure.py::test_a_lease_is_certain_from_when_it_was_asked_for",
    ),
    mutant(
        "tenure, unheard",
        "who was given something renews its lease, though it never heard that it is registered",
        _HOST,
        "return self.tenure.has_begun or bool(self._drivers)",
        "return self.tenure.has_begun",
        f"{_UNIT}/test_quarantine.py"
        "::test_an_owner_that_never_heard_that_it_is_one_knows_it_by_what_it_has",
        _KEPT_SEEDS,
    ),
    mutant(
        "tenure, over",
        "who was refused once is no owner again, whatever the store says later",
        "harmonia_actors/runtime/tenure.py",
        "self._is_over = not is_renewed",
        "pass",
        f"{_UNIT}/test_tenure.py::test_who_was_refused_once_is_never_certain_again",
    ),
    mutant(
        "tenure, again",
        "who has been an owner does not register anew: it may have been succeeded",
        _HOST,
        "known, by_ms = self._is_known, self.clock.now_ms() + lease_ms",
        "known, by_ms = False, self.clock.now_ms() + lease_ms",
        f"{_UNIT}/test_tenure.py::test_who_was_succeeded_is_no_owner_again_whoever_asks_it_to_be",
    ),
    mutant(
        "tenure, too late",
        "a registration that arrives late makes no owner: it may have been one, and succeeded",
        _HOST,
        "lease_ms=lease_ms, known=known, by_ms=by_ms",
        "lease_ms=lease_ms, known=known",
        f"{_UNIT}/test_tenure.py::test_a_registration_that_came_too_late_makes_no_owner",
    ),
    mutant(
        "tenure, registers",
        "who is yet to be registered does not take itself for succeeded",
        _HOST,
        "            if not self._is_known:\n                continue\n",
        "",
        f"{_UNIT}/test_tenure.py"
        "::test_who_was_given_nothing_waits_until_he_hears_that_he_is_registered",
    ),
    mutant(
        "asked back, given",
        "nothing is given to a task actor that is being asked to give back",
        "harmonia_actors/runtime/batching.py",
        "held.batches or held.asking_back",
        "held.batches",
        f"{_UNIT}/test_unheard_calls.py"
        "::test_what_was_given_once_more_is_not_taken_for_what_was_given_back",
    ),
    mutant(
        "asked back, idle",
        "nor is it left to others, who would lose what they give it",
        "harmonia_actors/runtime/dispatch_queues.py",
        "not (self.given or self.batches or self.asking_back)",
        "not (self.given or self.batches)",
        f"{_UNIT}/test_unheard_calls.py"
        "::test_nobody_else_gets_an_actor_that_may_give_back_what_he_gives_it",
    ),
    mutant(
        "ending",
        "an owner tells an end only of what it has written all of",
        "harmonia_actors/runtime/driver_maker.py",
        "is_all=(loaded.epoch, loaded.version) == (1, 1) and not loaded.rows",
        "is_all=True",
        "tests/unit/service/test_told_by_the_owner.py"
        "::test_another_owner_than_the_first_one_leaves_it_to_the_store",
    ),
    mutant(
        "loans",
        "an actor is given back only by who has it by that very question",
        "harmonia_actors/runtime/pool_loans.py",
        "if lent is None or not lent[(holder, request)]:",
        "if lent is None:",
        f"{_UNIT}/test_pool_host.py"
        "::test_a_release_that_is_repeated_late_frees_nothing_that_was_granted_since",
        f"{_UNIT}/test_pool_host.py"
        "::test_a_release_that_an_earlier_pool_has_heard_frees_nothing_in_a_later_one",
    ),
    mutant(
        "clocks, takeover",
        "no retry waits longer after a takeover than if it began there",
        _EXECUTION,
        "            if row.retry_at_ms > longest:\n",
        "            if False:\n",
        f"{_CORE}/test_resuming.py"
        "::test_a_clock_that_was_put_back_makes_no_retry_wait_longer_than_from_now",
    ),
    mutant(
        "clocks, store's",
        "all owners go by the store's clock",
        "harmonia_actors/runtime/clock.py",
        "            self._known = self._after(at_ms)\n",
        "            pass\n",
        f"{_UNIT}/test_clock.py::test_owners_whose_machines_disagree_have_the_same_time",
    ),
)
