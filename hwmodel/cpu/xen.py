"""The Xen PV domain that the engine keeps: page-frame types, virtual CPUs, registrations.

Thin: each method is one call of cext/xen.cdef.h. Errors are Xen's, as negative numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from hwmodel.cpu.unicorn import ffi, lib

VCPUS_MAX: Final = 32
PAGE: Final = 4096
OPTIONS: Final[Mapping[str, int]] = {"validates": 0, "batches": 1, "assists": 2}


class Layout(NamedTuple):
    """Numbers of machine frames: Xen's own begin behind the guest's; `end` is one too far."""

    m2p: int
    shared_info: int
    gdt_page: int
    grants: int
    grant_count: int
    end: int


@dataclass(frozen=True, slots=True)
class Breach:
    """A rule that the guest broke; `rule` is enum xen_rule."""

    rule: int
    address: int
    value: int
    rip: int
    cycles: int


@dataclass(frozen=True, slots=True)
class Frame:
    """What the engine knows of a machine frame: enum frame_type, references, FRAME_* flags."""

    type: int
    refs: int
    types: int
    flags: int


def layout_of(frames: int, vcpus: int) -> Layout:
    """Return where Xen's own frames are beside `frames` of the guest's."""
    native = ffi.new("struct xen_layout *")
    lib.xen_layout_of(frames, vcpus, native)
    return Layout(*(int(getattr(native, name)) for name in Layout._fields))


class XenEngine:
    """The domain of one engine."""

    def __init__(self, native: Any, frames: int, vcpus: int) -> None:
        """Make it. Raises MemoryError if machine memory is too small for it."""
        self._native: Final = native
        self.frames: Final = frames
        if lib.xen_create(native, frames, vcpus):
            raise MemoryError(f"no room for a domain of {frames} frames and {vcpus} vCPUs")
        self._counters: Final = lib.xen_counters_of(native)
        self._calls: Final = [lib.xen_call_of(native, n) for n in range(vcpus)]

    def reset(self) -> None:
        """Power-up."""
        lib.xen_reset(self._native)

    def attach(self, vcpu: Any, number: int) -> None:
        """Make a native vcpu number `number` of the domain."""
        lib.xen_attach(vcpu, number)

    def start(self, vcpu: Any, root: int, entry: int, stack: int, start_info: int) -> int:
        """Validate the builder's tables and load them, and the registers of vCPU 0."""
        return int(lib.xen_start(self._native, vcpu, root, entry, stack, start_info))

    def context(self, vcpu: Any, context: bytes) -> int:
        """Give a vCPU a struct vcpu_guest_context."""
        return int(lib.xen_vcpu_context(self._native, vcpu, context))

    def call(self, vcpu: int) -> tuple[int, tuple[int, ...]]:
        """Return number and arguments of the hypercall that waits for software."""
        call = self._calls[vcpu]
        return call.number, tuple(call.arg)

    def finish(self, vcpu: Any, result: int) -> int:
        """Answer it. 0: over; 1: another waits; 2: the same SYSCALL goes on."""
        return int(lib.xen_finish(self._native, vcpu, result))

    def vcpu_info(self, vcpu: int) -> int:
        """Return the machine address of its struct vcpu_info."""
        return int(lib.xen_vcpu_info(self._native, vcpu))

    def set_vcpu_info(self, vcpu: int, mfn: int, offset: int) -> int:
        """Move it into the guest's memory."""
        return int(lib.xen_set_vcpu_info(self._native, vcpu, mfn, offset))

    def set_iopl(self, vcpu: int, iopl: int) -> None:
        """PHYSDEVOP_set_iopl."""
        lib.xen_set_iopl(self._native, vcpu, iopl)

    def set_io_bitmap(self, vcpu: int, linear: int, ports: int) -> None:
        """PHYSDEVOP_set_iobitmap: where a bit for each of so many ports is."""
        lib.xen_set_io_bitmap(self._native, vcpu, linear, ports)

    def set_callback(self, vcpu: int, kind: int, address: int, *, masks: bool) -> int:
        """Register a callback, as callback_op does."""
        return int(lib.xen_set_callback(self._native, vcpu, kind, address, masks))

    def is_up(self, vcpu: int) -> bool:
        """Whether a vCPU was brought up."""
        return bool(lib.xen_is_up(self._native, vcpu))

    def set_up(self, vcpu: int, *, up: bool) -> None:
        """Bring it up or down."""
        lib.xen_set_up(self._native, vcpu, up)

    def set_option(self, name: str, value: int) -> None:
        """Set `validates` (times: more than once shows what it costs), `assists` or `batches`.

        Without `batches` each operation of many is a call of its own.
        """
        lib.xen_set_option(self._native, OPTIONS[name], value)

    def pfn_of(self, mfn: int) -> int:
        """Return what the machine-to-physical table says."""
        return int(lib.xen_m2p_of(self._native, mfn))

    def set_pfn(self, mfn: int, pfn: int) -> None:
        """Write the machine-to-physical table."""
        lib.xen_set_m2p(self._native, mfn, pfn)

    def is_owned(self, mfn: int) -> bool:
        """Whether a machine frame is the guest's."""
        return bool(lib.xen_is_owned(self._native, mfn))

    def release(self, mfn: int) -> int:
        """Take a frame from the guest."""
        return int(lib.xen_release_frame(self._native, mfn))

    def claim(self) -> int:
        """Give the guest a frame: its number, or -ENOMEM."""
        return int(lib.xen_claim_frame(self._native))

    def hold(self, mfn: int, *, writable: bool) -> bool:
        """Keep a frame what it is while a back end uses it; False if it is no such frame."""
        return not lib.xen_hold_frame(self._native, mfn, writable)

    def drop(self, mfn: int, *, writable: bool) -> None:
        """End a hold."""
        lib.xen_drop_frame(self._native, mfn, writable)

    def address(self, mfn: int) -> int:
        """Return the machine address of a frame."""
        return mfn * PAGE

    def l1_entry(self, vcpu: Any, linear: int) -> int | None:
        """Return the machine address of the entry that maps a linear address; None: no table."""
        found = int(lib.xen_l1_entry(self._native, vcpu, linear))
        return None if found < 0 else found

    def set_l1_entry(self, vcpu: Any, address: int, entry: int) -> bool:
        """Change an entry, as an update does; whether it was carried out."""
        return not lib.xen_set_l1_entry(self._native, vcpu, address, entry)

    def maps(self, first: int, count: int) -> bool:
        """Whether a page table of the guest's leads to one of these frames."""
        return bool(lib.xen_is_mapped(self._native, first, count))

    def frame(self, mfn: int) -> Frame | None:
        """Return what is known of a machine frame; None where there is none."""
        fields = ffi.new("uint64_t[4]")
        return None if lib.xen_frame(self._native, mfn, fields) else Frame(*map(int, fields))

    def audit(self) -> tuple[int, tuple[int, ...]]:
        """Count every reference anew: how many frames disagree, and the first one's figures."""
        first = ffi.new("uint64_t[4]")
        return int(lib.xen_audit(self._native, first)), tuple(map(int, first))

    def crash(self) -> tuple[int, int]:
        """Return why the domain crashed (enum xen_crash; 0: it did not), and where."""
        address = ffi.new("uint64_t *")
        return int(lib.xen_crash_of(self._native, address)), int(address[0])

    def breaches(self, since: int = 0) -> list[Breach]:
        """Return the breaches after number `since` that are still kept."""
        found = []
        for number in range(since + 1, int(self._counters.breaches) + 1):
            native = lib.xen_breach_number(self._native, number)
            if native:
                found.append(Breach(*(int(getattr(native, n)) for n in Breach.__slots__)))
        return found

    def note_breach(self, rule: int, address: int, value: int) -> None:
        """Keep a breach that software found."""
        lib.xen_note_breach(self._native, rule, address, value)

    def breach_count(self) -> int:
        """Return how many breaches there were."""
        return int(self._counters.breaches)

    def counters(self) -> dict[str, int | list[int]]:
        """Return what was counted, by name."""
        names = [name for name, _ in ffi.typeof("struct xen_counters").fields]
        values = ((name, getattr(self._counters, name)) for name in names)
        return {name: v if isinstance(v, int) else list(v) for name, v in values}

    def save(self) -> bytes:
        """Return the whole state but counters."""
        image = ffi.new("uint8_t[]", lib.xen_state_bytes(self._native))
        lib.xen_save(self._native, image)
        return bytes(ffi.buffer(image))

    def restore(self, image: bytes) -> None:
        """Take back what `save` gave."""
        lib.xen_restore(self._native, ffi.from_buffer(image))
