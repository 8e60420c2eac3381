"""How long whoever waits for something bears with a service that is away.

A single request is given up after a few tries. Who follows events, or waits for an end, is there
for as long as it takes, and must outlast a restart of everything, which takes about half a minute.
This module must not know the network, nor what time it is: who tries says how long each try took.
"""

from __future__ import annotations

from typing import Final

from harmonia_serve.client.errors import ApiError, ServiceUnreachable

__all__ = ["PATIENCE_S", "Outage"]

#: So long a service may be away that has answered before.
PATIENCE_S: Final = 120.0
_FIRST_PAUSE_S: Final = 0.1
_PAUSE_S_MAX: Final = 5.0
#: The service may be away, or asks to come again. An unexpected error may be one of an outage.
_PASSING: Final = frozenset({429, 500, 502, 503, 504})


class Outage:
    """Tries in a row that came to nothing, and how long that has lasted."""

    def __init__(self, patience_s: float) -> None:
        """`patience_s`: from how many seconds on the error is raised."""
        self.patience_s = patience_s
        self._tries = 0
        self._away_s = 0.0

    def end(self) -> None:
        """The service is there."""
        self._tries = 0
        self._away_s = 0.0

    def pause_s(self, error: ServiceUnreachable | ApiError, took_s: float) -> float:
        """Seconds until the next try, ever more, after one that took so long and failed.

        Raises the error if it will not go away, or if the patience is used up.
        """
        self._away_s += took_s
        if self._away_s >= self.patience_s or not _may_pass(error):
            raise error
        pause_s = min(_FIRST_PAUSE_S * 2.0**self._tries, _PAUSE_S_MAX)
        self._tries += 1
        self._away_s += pause_s
        return pause_s


def _may_pass(error: ServiceUnreachable | ApiError) -> bool:
    return isinstance(error, ServiceUnreachable) or error.status in _PASSING or error.of_a_proxy
