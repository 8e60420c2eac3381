"""Guards of stopping: cancels, timeouts, and the output that is there at the end.

That each is noticed by the simulation matters as much as that its own test notices it: the
simulation is what tries them together with everything else that goes wrong.
"""

from __future__ import annotations

from tests.mutation.mutant import Mutant, mutant

__all__ = ["STOP_MUTANTS"]

_CORE = "tests/unit/core"
_HOST = "tests/unit/runtime/test_host.py"
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
)
