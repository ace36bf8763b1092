"""Guests kept from test to test: making one costs tens of milliseconds, a reset a tenth of one.

A VM is full of cycles. One that is closed keeps its memory until Python collects those, and engines
that are more than 2 GiB away from the libraries do without the fast way into a block (inline.c).
"""

import gc
from collections import OrderedDict
from typing import Any

from vmm.testing.environment import Environment
from vmm.testing.guest import Guest

MOST = 4
"""Guests kept; each has its memory and an engine."""


class Pool:
    """Guests by the options that they were made with."""

    def __init__(self) -> None:
        """Start with none."""
        self._guests: OrderedDict[tuple[tuple[str, Any], ...], Guest] = OrderedDict()

    def guest(self, environment: Environment, options: dict[str, Any]) -> Guest:
        """Return a guest, reset to `environment`."""
        key = tuple(sorted(options.items()))
        guest = self._guests.pop(key, None)
        if guest is None:
            guest = Guest(environment, **options)
        else:
            guest.reset(environment)
        self._guests[key] = guest
        if len(self._guests) > MOST:
            self._guests.popitem(last=False)[1].close()
            gc.collect()
        return guest

    def drop(self, guest: Guest) -> None:
        """Forget one that may be broken."""
        for key, kept in list(self._guests.items()):
            if kept is guest:
                self._guests.pop(key).close()

    def close(self) -> None:
        """Free all."""
        while self._guests:
            self._guests.popitem()[1].close()
