"""Guards, each switched off, and the tests that must notice: see `run`."""

from __future__ import annotations

from tests.mutation.keeping_mutants import KEEPING_MUTANTS
from tests.mutation.running_mutants import RUNNING_MUTANTS
from tests.mutation.stop_mutants import STOP_MUTANTS
from tests.mutation.store_mutants import STORE_MUTANTS
from tests.mutation.stretch_mutants import STRETCH_MUTANTS

__all__ = ["MUTANTS"]

MUTANTS = (
    *STORE_MUTANTS,
    *RUNNING_MUTANTS,
    *KEEPING_MUTANTS,
    *STRETCH_MUTANTS,
    *STOP_MUTANTS,
)
