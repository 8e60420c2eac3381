"""The short form of real chaos: every kind of fault that Harmonia mends by itself lands once."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.chaos.faults import LIGHT, Faults
from tests.chaos.judge import judge
from tests.chaos.run import cause_chaos, shortfalls
from tests.chaos.work import Load, Starter
from tests.support.running import RunningService, until

_STOPPED = "execution actor stopped"
_KINDS = [kind for kind in LIGHT if kind != _STOPPED]
_ALL_OF_RAY = "GCS killed"
_EXECUTIONS_MAX = 400
#: Until two of them have been there for so long that one may be stopped.
_SERVING_S = 60.0
_LOAD = Load(threads=2)


@pytest.mark.timeout(600)
def test_executions_come_out_exactly_right_whatever_dies(
    service: RunningService, tmp_path: Path
) -> None:
    random = Random(20_261_127)
    journal = tmp_path / "journal"
    journal.touch()
    faults = Faults(service, random, {})
    with Starter(service, random, journal, load=_LOAD, most=_EXECUTIONS_MAX) as starter:
        # It stands still all the while, until all of Ray goes: `test_deaths` has one that wakes.
        until(lambda: faults.land(_STOPPED), _SERVING_S, "an execution actor that has served")
        cause_chaos(faults, _KINDS, random, 1.0, starter)
        assert faults.land(_ALL_OF_RAY)
    faults.over()
    found = judge(service, starter.accepted, journal, patience_s=120.0)
    assert found.wrong == []
    assert shortfalls(found, faults.landed, [*LIGHT, _ALL_OF_RAY]) == []
