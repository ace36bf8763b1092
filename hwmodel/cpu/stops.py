"""Where the engine stops for a debugger, and what of it a checkpoint has to keep.

Time is counted in steps: instructions retired and events delivered. Nothing here is visible to a
guest (cext/stops.c says how that is done).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any, Final

from hwmodel.cpu.unicorn import ffi, lib

_NEVER: Final = (1 << 64) - 1


class Mode(IntEnum):
    """What happens at a hit."""

    OFF = lib.STOPS_OFF
    STOP = lib.STOPS_STOP
    RECORD = lib.STOPS_RECORD
    """Nothing stops; the newest hits are kept."""


class Kind(IntEnum):
    """What was hit."""

    CODE = lib.HIT_CODE
    DATA = lib.HIT_DATA
    EXIT = lib.HIT_EXIT


class Watch(IntFlag):
    """Which accesses to memory count."""

    READ = lib.WATCH_READS
    WRITE = lib.WATCH_WRITES
    ACCESS = lib.WATCH_READS | lib.WATCH_WRITES


@dataclass(frozen=True, slots=True)
class Hit:
    """One hit: before an instruction, behind an access to `size` bytes, or at an exit.

    `steps`, `exits` and `cycle` say when. `address` is linear or host-physical, as asked for.
    """

    id: int
    kind: Kind
    steps: int
    exits: int
    cycle: int
    address: int
    size: int
    writes: bool


class EngineStops:
    """The stops of one engine."""

    def __init__(self, native: Any) -> None:
        """`native` is a `struct engine *` that lives longer than this."""
        self._native: Final = native

    @property
    def steps(self) -> int:
        """Instructions retired and events delivered so far."""
        return lib.engine_steps(self._native)  # type: ignore[no-any-return]

    @property
    def exits(self) -> int:
        """Exits taken so far."""
        return lib.engine_counters(self._native).exits  # type: ignore[no-any-return]

    def target(self, steps: int | None, others: int) -> None:
        """Stop when so many steps have been made; `others` of them are not booked yet."""
        lib.engine_stop_target(self._native, _NEVER if steps is None else steps, others)

    def passed(self, steps: int | None) -> None:
        """Say that breakpoints at the instruction before which `steps` were made have been seen."""
        lib.engine_stop_pass(self._native, _NEVER if steps is None else steps)

    def clear(self) -> None:
        """Ask for nothing; `arm` comes before the next entry."""
        lib.engine_stops_clear(self._native)

    def at_code(self, number: int, address: int, *, physical: bool) -> None:
        """Stop before the instruction at an address."""
        _check(lib.engine_stop_at_code(self._native, number, physical, address))

    def at_data(
        self, number: int, address: int, size: int, kinds: Watch, *, physical: bool
    ) -> None:
        """Stop behind an access to any of `size` bytes."""
        _check(lib.engine_stop_at_data(self._native, number, physical, address, size, int(kinds)))

    def at_exit(
        self, number: int, reasons: int, match: Sequence[int], when: Sequence[int], count: int
    ) -> None:
        """Stop at exits of `reasons` (a bitmap) by two programs; see cext/native.cdef.h."""
        masks = [reasons >> 64 * word & _NEVER for word in range(3)]
        _check(
            lib.engine_stop_at_exit(
                self._native, number, masks, list(match), len(match), list(when), len(when), count
            )
        )

    def count(self, number: int) -> int:
        """Return how many exits `match` of a stop has held for."""
        return lib.engine_stop_count(self._native, number)  # type: ignore[no-any-return]

    def arm(self, mode: Mode, *, renew: bool) -> None:
        """Begin: no hit yet. `renew` says that what is asked for has changed."""
        lib.engine_stops_arm(self._native, int(mode), renew)

    def hit(self) -> Hit | None:
        """Return the newest hit since `arm`."""
        return self._hit(lib.engine_stop_hits(self._native))

    def hits(self) -> tuple[list[Hit], bool]:
        """Return the hits since `arm`, oldest first, and whether there were older ones."""
        total: int = lib.engine_stop_hits(self._native)
        found: list[Hit] = []
        while total > len(found) and (hit := self._hit(total - len(found))) is not None:
            found.append(hit)
        return found[::-1], total > len(found)

    def _hit(self, number: int) -> Hit | None:
        native = lib.engine_stop_hit(self._native, number)
        if native == ffi.NULL:
            return None
        return Hit(
            native.id, Kind(native.kind), native.steps, native.exits, native.cycles,
            native.address, native.size, bool(native.writes),
        )  # fmt: skip

    def settle(self, steps: int, cycle: int) -> bool:
        """Behind a handler: whether watched memory was touched."""
        return bool(lib.engine_stop_settle(self._native, steps, cycle))

    def keep(self) -> bytes:
        """Return what the processor remembers beside its virtual CPUs: caches, counts, exits."""
        buffer = ffi.new("uint8_t[]", lib.engine_kept_bytes(self._native))
        lib.engine_keep(self._native, buffer)
        return bytes(ffi.buffer(buffer))

    def put_back(self, image: bytes) -> None:
        """Take back what `keep` gave."""
        lib.engine_put_back(self._native, ffi.from_buffer("uint8_t[]", image))


def _check(failed: int) -> None:
    if failed:
        raise ValueError("a stop that the engine cannot take")
