"""Guards of stopping and of taking over: cancels, timeouts, and the output at the end.

That each is noticed by the simulation matters as much as that its own test notices it: the
simulation is what tries them together with everything else that goes wrong.
"""

from __future__ import annotations

from tests.mutation.mutant import Mutant, mutant

__all__ = ["STOP_MUTANTS"]

_CORE = "tests/unit/core"
_UNIT = "tests/unit/runtime"
_HOST = f"{_UNIT}/test_host.py"
_SIMULATION = "tests/simulation/test_seeds.py::test_seeds_and_that_they_were_worth_running"
_KEPT_SEEDS = "tests/simulation/test_seeds.py::test_seeds_that_once_found_something"
_EXECUTION = "harmonia_actors/core/execution.py"

STOP_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "cancel",
        "a cancel that was accepted is obeyed",
        "harmonia_actors/runtime/notes.py",
        """                return [st.CancelRequested(int(raw["at_ms"]))]\n""",
        """                return []\n""",
        f"{_HOST}::test_a_cancel_comes_through_the_inbox",
        _SIMULATION,
    ),
    mutant(
        "task timeout",
        "an attempt that is past its timeout is stopped",
        _EXECUTION,
        "                self._stop(task, StopReason.TIMEOUT)\n",
        "                pass\n",
        f"{_CORE}/test_resuming.py::test_a_stop_for_a_timeout_is_given_again",
        _KEPT_SEEDS,
    ),
    mutant(
        "deadline",
        "an execution that is past its timeout is stopped",
        _EXECUTION,
        "                self._deadline_passed(at_ms)\n",
        "                pass\n",
        f"{_CORE}/test_execution.py::test_the_deadline_of_an_execution_stops_all_and_says_so",
        _SIMULATION,
    ),
    mutant(
        "execution output",
        "the output of an execution is what its last tasks gave",
        "harmonia_actors/core/outputs.py",
        '        if body[:1] == b"{":\n            return body\n',
        '        if body[:1] == b"{":\n            return b"{}"\n',
        _SIMULATION,
    ),
    mutant(
        "taken over, nudge",
        "a cancel that comes while an execution is taken over is heard",
        "harmonia_actors/runtime/host.py",
        "                inbox = await self.store.read_inbox(execution_id)\n",
        "                pass\n",
        f"{_UNIT}/test_taking_over.py::test_a_cancel_that_comes_while_its_driver_is_made_is_heard",
    ),
    mutant(
        "taken over, twice",
        "of two claims by the same owner the later one drives",
        "harmonia_actors/runtime/host.py",
        "if former is None or former.epoch > epoch:",
        "if former is None:",
        f"{_UNIT}/test_taking_over.py::test_of_two_claims_the_later_one_drives",
    ),
    mutant(
        "stopped early",
        "a stop that overtakes what it stops is remembered",
        "harmonia_actors/runtime/task_host.py",
        "                self._stopped_early.add(attempt)\n                return True\n",
        "                pass\n",
        f"{_UNIT}/test_early_stops.py::test_a_stop_that_overtakes_its_batch_is_followed",
    ),
    mutant(
        "stood still",
        "who stood still takes nobody for silent whom he has yet to hear",
        "harmonia_actors/runtime/silence.py",
        "if may_judge() and loop.time() - begun_s < 2 * part_s + _LATE_S:",
        "if may_judge():",
        f"{_UNIT}/test_silence.py::test_who_stood_still_hears_first_what_he_was_told_meanwhile",
    ),
)
