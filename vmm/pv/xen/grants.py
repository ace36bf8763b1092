"""Grant tables (public/grant_table.h): which frames the guest lets back ends use.

The guest writes entries into shared frames: version 1 has 8 bytes an entry (flags, domain, frame),
version 2 16 bytes and the status words apart. Back ends take a frame for as long as they use it;
its entry shows that, and its page-frame type is held.
"""

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, Protocol

from vmm.pv.xen.abi import BACKEND_DOMID, PAGE, Errno, is_self
from vmm.pv.xen.guest import Caller
from vmm.pv.xen.referee import Report, Rule, ignore
from vmm.pv.xen.shared import Shared

if TYPE_CHECKING:
    from collections.abc import Callable

OKAY, GENERAL_ERROR, BAD_DOMAIN, BAD_GNTREF = 0, -1, -2, -3
PERMIT_ACCESS, READ_ONLY, READING, WRITING = 1, 1 << 2, 1 << 3, 1 << 4
_TYPE_MASK: Final = 3
CONSOLE_REFERENCE, STORE_REFERENCE, RESERVED = 0, 1, 8
MAX_FRAMES: Final = 32
STATUS_FRAMES: Final = 32  # behind them
_ENTRY: Final = {1: Struct("<HHI"), 2: Struct("<HH4xQ")}
_SETUP: Final = Struct("<H2xIh6xQ")
_QUERY: Final = Struct("<H2xIIh2x")
_STATUS: Final = Struct("<IHhQ")
_VERSION: Final = Struct("<H2xI")
_COMMANDS: Final = {0: 32, 1: 24, 4: 24, 5: 40, 7: 24}
"""Operations on other domains' grants, and the bytes of their arguments."""
_STATUS_AT: Final = {0: 18, 1: 20, 4: 16, 5: 36, 7: 20}


class Frames(Protocol):
    """Who has the guest's frames."""

    def hold(self, mfn: int, *, writable: bool) -> bool:
        """Keep a frame what it is while a back end uses it; False if it is no such frame."""

    def drop(self, mfn: int, *, writable: bool) -> None:
        """End a hold."""

    def address(self, mfn: int) -> int:
        """Return the machine address of a frame that is held."""

    def maps(self, first: int, count: int) -> bool:
        """Whether the guest has one of Xen's own frames in its page tables."""


class Own(Protocol):
    """Who maps and copies what the guest granted to itself."""

    def carry_out(self, cpu: Any, command: int, at: int, count: int) -> bool:
        """Carry a list of operations out; False if that is not done here."""


@dataclass(slots=True)
class Use:
    """Who has the frame of a grant."""

    frame: int
    readers: int = 0
    writers: int = 0


class GrantTable:
    """The guest's table: its hypercalls, and what back ends ask of it."""

    def __init__(self, shared: Shared, engine: Frames, first: int) -> None:
        """`first` is the first of the frames in machine memory that hold it."""
        self._shared: Final = shared
        self._engine: Final = engine
        self._first: Final = first
        self.version = 1
        self.frames = 1
        self.report: Report = ignore
        self._uses: dict[int, Use] = {}
        self.own: Own | None = None
        """Who carries out operations on the guest's own grants."""
        self._operations: Final[dict[int, Callable[[Caller, int], int]]] = {
            2: self._setup, 6: self._query, 8: self._set_version, 9: self._get_status,
            10: self._get_version,
        }  # fmt: skip

    def __call__(self, cpu: Caller, arguments: tuple[int, ...]) -> int:
        """HYPERVISOR_grant_table_op(command, arguments, count)."""
        command, at, count = arguments[0] & 0xFFFF_FFFF, arguments[1], arguments[2] & 0xFFFF_FFFF
        operation = self._operations.get(command)
        if operation is None:
            return self._of_others(cpu, command, at, count)
        if command in (2, 6) and count != 1:
            return -Errno.INVAL
        return operation(cpu, at)

    def _of_others(self, cpu: Caller, command: int, at: int, count: int) -> int:
        """Map, unmap, copy, transfer: no other domain lets this one use a frame."""
        if self.own is not None and self.own.carry_out(cpu, command, at, count):
            return 0
        if command not in _COMMANDS:
            return -Errno.NOSYS
        size = _COMMANDS[command]
        for number in range(min(count, 4096)):
            place = at + number * size
            cpu.read(place, size)
            cpu.write(place + _STATUS_AT[command], BAD_DOMAIN.to_bytes(2, "little", signed=True))
        return 0

    def _setup(self, cpu: Caller, at: int) -> int:
        domain, count, _, frames = cpu.unpack(_SETUP, at)
        status = OKAY if is_self(domain) else BAD_DOMAIN
        if status == OKAY and count > MAX_FRAMES:
            status = GENERAL_ERROR
        if status == OKAY:
            self.frames = max(self.frames, count)
            listed = (self._first + n for n in range(count))
            cpu.write(frames, b"".join(mfn.to_bytes(8, "little") for mfn in listed))
        cpu.write(at + 8, status.to_bytes(2, "little", signed=True))
        return 0

    def _query(self, cpu: Caller, at: int) -> int:
        domain, *_ = cpu.unpack(_QUERY, at)
        status = OKAY if is_self(domain) else BAD_DOMAIN
        cpu.write(at, _QUERY.pack(domain, self.frames, MAX_FRAMES, status))
        return 0

    def _set_version(self, cpu: Caller, at: int) -> int:
        version = int.from_bytes(cpu.read(at, 4), "little")
        if version not in _ENTRY:
            return -Errno.INVAL
        if version != self.version and (self._uses or self._shows_status()):
            return -Errno.BUSY
        if version != self.version:
            self._change_version(version)
        cpu.write(at, version.to_bytes(4, "little"))
        return 0

    def _shows_status(self) -> bool:
        """Whether the guest has one of the frames mapped that only version 2 has."""
        first = self._first + MAX_FRAMES
        return self.version != 1 and self._engine.maps(first, STATUS_FRAMES)

    def _change_version(self, version: int) -> None:
        """All entries are lost but the reserved ones (xen/common/grant_table.c)."""
        kept = [self._entry(reference) for reference in range(RESERVED)]
        for number in range(self.frames):
            self._shared.store((self._first + number) * PAGE, bytes(PAGE))
        self.version = version
        for reference, entry in enumerate(kept):
            place = self._place(reference)
            assert place is not None
            assert entry is not None
            self._shared.store(place, _ENTRY[version].pack(*entry))

    def seed(self, console: int, store: int) -> None:
        """Grant the frames of console and xenstore to the first domain, as a toolstack does."""
        for reference, frame in ((CONSOLE_REFERENCE, console), (STORE_REFERENCE, store)):
            place = self._place(reference)
            assert place is not None
            layout = _ENTRY[self.version]
            self._shared.store(place, layout.pack(PERMIT_ACCESS, BACKEND_DOMID, frame))

    def _get_status(self, cpu: Caller, at: int) -> int:
        count, domain, _, frames = cpu.unpack(_STATUS, at)
        status = OKAY if is_self(domain) else BAD_DOMAIN
        if status == OKAY and (self.version != 2 or count > STATUS_FRAMES):
            status = GENERAL_ERROR
        if status == OKAY:
            listed = (self._first + MAX_FRAMES + n for n in range(count))
            cpu.write(frames, b"".join(mfn.to_bytes(8, "little") for mfn in listed))
        cpu.write(at + 6, status.to_bytes(2, "little", signed=True))
        return 0

    def _get_version(self, cpu: Caller, at: int) -> int:
        domain, _ = cpu.unpack(_VERSION, at)
        if not is_self(domain):
            return -Errno.SRCH
        cpu.write(at + 4, self.version.to_bytes(4, "little"))
        return 0

    # ---- back ends ----

    def take(self, reference: int, *, writable: bool, domain: int = BACKEND_DOMID) -> int | None:
        """Return the machine address of a granted frame, held until `give_back`; None: no grant.

        While somebody has it the grant is for the frame that it was for at first, as in Xen.
        """
        entry = self._entry(reference)
        use = self._uses.get(reference)
        if entry is None or not self._permits(entry, domain, writable=writable):
            self._say(Rule.STALE_GRANT if use else Rule.BAD_GRANT, reference)
            return None
        flags, _, mfn = entry
        if use is not None and use.frame != mfn:
            self._say(Rule.STALE_GRANT, reference)
            mfn = use.frame
        if not self._engine.hold(mfn, writable=writable):
            self._say(Rule.BAD_GRANT, reference)
            return None
        use = self._uses.setdefault(reference, Use(mfn))
        use.readers += not writable
        use.writers += writable
        self._mark(reference, flags | READING | (WRITING if writable else 0))
        return self._engine.address(mfn)

    def give_back(self, reference: int, address: int, *, writable: bool) -> None:
        """End the use of a frame that `take` gave."""
        self._engine.drop(address // PAGE, writable=writable)
        entry, use = self._entry(reference), self._uses[reference]
        use.readers -= not writable
        use.writers -= writable
        if entry is None:
            return
        flags, _, mfn = entry
        if mfn != use.frame or (self.version == 1 and flags & _TYPE_MASK != PERMIT_ACCESS):
            self._say(Rule.STALE_GRANT, reference)  # version 2: flags go first, then use is seen
        if not use.writers:
            flags &= ~WRITING
        if not use.readers + use.writers:
            flags &= ~READING
            del self._uses[reference]
        self._mark(reference, flags)

    def exists(self, reference: int) -> bool:
        """Whether the table has such an entry."""
        return self._place(reference) is not None

    def entry(self, reference: int) -> tuple[int, int, int] | None:
        """Return flags, domain and frame of an entry."""
        return self._entry(reference)

    def swap(self, one: int, other: int) -> None:
        """Let two entries change places."""
        first, second, size = self._place(one), self._place(other), _ENTRY[self.version].size
        assert first is not None
        assert second is not None
        kept = self._shared.load(first, size)
        self._shared.store(first, self._shared.load(second, size))
        self._shared.store(second, kept)

    def is_used(self, reference: int) -> bool:
        """Whether somebody has its frame."""
        return reference in self._uses

    @staticmethod
    def _permits(entry: tuple[int, int, int], domain: int, *, writable: bool) -> bool:
        flags, granted_to, _ = entry
        allowed = flags & _TYPE_MASK == PERMIT_ACCESS and granted_to == domain
        return allowed and not (writable and flags & READ_ONLY)

    def _say(self, rule: Rule, reference: int) -> None:
        self.report(rule, self._place(reference) or 0, reference)

    def save(self) -> list[Any]:
        """The version, how many frames there are, and who has what."""
        uses = [[ref, u.frame, u.readers, u.writers] for ref, u in sorted(self._uses.items())]
        return [self.version, self.frames, uses]

    def restore(self, state: Any) -> None:
        """Take over what save() returned."""
        self.version, self.frames, uses = state
        self._uses = {reference: Use(*rest) for reference, *rest in uses}

    def _place(self, reference: int) -> int | None:
        size = _ENTRY[self.version].size
        if not 0 <= reference * size < self.frames * PAGE:
            return None
        return self._first * PAGE + reference * size

    def _entry(self, reference: int) -> tuple[int, int, int] | None:
        place, layout = self._place(reference), _ENTRY[self.version]
        if place is None:
            return None
        flags, domain, mfn = layout.unpack(self._shared.load(place, layout.size))
        return flags, domain, mfn

    def _mark(self, reference: int, flags: int) -> None:
        place = self._place(reference)
        if place is not None and self.version == 1:
            self._shared.write(place, 2, flags)
        elif place is not None:
            status = (self._first + MAX_FRAMES) * PAGE + 2 * reference
            self._shared.write(status, 2, flags & (READING | WRITING))
