"""The one state protocol: what a VM is, in memory. Files, checkpoints, test reset stand on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hwmodel.arch.vmcs import Field, Group
from vmm.activity import Activity
from vmm.devices.device import State
from vmm.devices.platform import Board
from vmm.memory.guest import GuestMemory
from vmm.state.pages import PageKeeper, Pages
from vmm.vcpu import Vcpu

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class VcpuState:
    """One virtual CPU, written down."""

    native: bytes
    activity: Activity
    nmi_pending: bool
    kicked: bool
    awaited_page: int
    runnable_since: int
    msrs: Mapping[int, int]
    random_state: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A VM at one moment. Pages are shared with other snapshots of the same VM."""

    version: int
    pages: Pages
    vcpus: tuple[VcpuState, ...]
    devices: Mapping[str, State]
    dialects: Mapping[str, State]
    instructions: int
    cycles: int
    ledger: bytes
    """The physical CPU's; a virtual CPU's part is in its own state."""
    turn: tuple[int, int, int]


def take_vcpu(vcpu: Vcpu) -> VcpuState:
    """Write down a virtual CPU."""
    vcpu.pcpu.sync(vcpu.vmcs)
    return VcpuState(
        vcpu.vmcs.save(),
        vcpu.activity,
        vcpu.nmi_pending,
        vcpu.kicked,
        vcpu.awaited_page,
        vcpu.runnable_since,
        dict(vcpu.msrs),
        vcpu.random_state,
    )


def put_vcpu(vcpu: Vcpu, state: VcpuState) -> None:
    """Make a virtual CPU what was written down."""
    vcpu.pcpu.forget(vcpu.vmcs)
    vcpu.vmcs.restore(state.native)
    vcpu.activity, vcpu.nmi_pending = state.activity, state.nmi_pending
    vcpu.kicked, vcpu.runnable_since = state.kicked, state.runnable_since
    vcpu.awaited_page = state.awaited_page
    vcpu.msrs, vcpu.random_state = dict(state.msrs), state.random_state
    vcpu.look_for_events = True


def take(
    keeper: PageKeeper,
    vcpus: list[Vcpu],
    board: Board,
    turn: tuple[int, int, int],
    *,
    flush: bool = True,
) -> Snapshot:
    """Write down a VM. Cached translations are dropped, so that what follows is the same after
    `put`: a stale one is no part of the state. Without `flush` the caller keeps them.
    """
    pcpu = vcpus[0].pcpu
    written = tuple(take_vcpu(vcpu) for vcpu in vcpus)
    pages = keeper.take()
    if flush:
        pcpu.flush_tlb()
    devices = (
        board.save()
    )  # first: a local APIC that is looked at books PV EOIs, in the dialect too
    return Snapshot(
        VERSION,
        pages,
        written,
        devices,
        vcpus[0].dialects.save(),
        pcpu.instructions,
        pcpu.clock.now,
        pcpu.save_ledger(),
        turn,
    )


def put(snapshot: Snapshot, keeper: PageKeeper, vcpus: list[Vcpu], board: Board) -> None:
    """Go back to a snapshot."""
    pcpu = vcpus[0].pcpu
    keeper.put(snapshot.pages)
    pcpu.set_clock(snapshot.instructions, snapshot.cycles, snapshot.ledger)
    for vcpu, state in zip(vcpus, snapshot.vcpus, strict=True):
        put_vcpu(vcpu, state)
    board.restore(dict(snapshot.devices))
    vcpus[0].dialects.restore(dict(snapshot.dialects))
    vcpus[0].memory.note_exchanged()
    pcpu.flush_tlb()


_OF_THE_APIC: Final = Field.GUEST_INTR_STATUS  # RVI, SVI: what the local APIC's page says too
_GUEST_FIELDS: Final = [f for f in Field if f.group is Group.GUEST_STATE and f is not _OF_THE_APIC]
_PLAIN: Final = ("cr2", "dr6", "star", "lstar", "cstar", "fmask", "kernel_gs_base", "tsc_aux")


def digest(memory: GuestMemory, vcpus: list[Vcpu], board: Board) -> str:
    """SHA-256 over RAM, architectural registers and device state, in hexadecimal.

    Neither TLB contents nor counts of what the host did are part of it.
    """
    import hashlib  # not every run ends with a digest
    import json

    h = hashlib.sha256(memory.ram.view[: memory.size])
    for vcpu in vcpus:
        registers = vcpu.regs.as_dict() | {name: getattr(vcpu.regs, name) for name in _PLAIN}
        fields = {f.name: vcpu.vmcs[f] for f in _GUEST_FIELDS}
        debug = [vcpu.regs.dr(n) for n in range(4)]
        state = [registers, fields, debug, sorted(vcpu.msrs.items()), vcpu.activity.value]
        h.update(json.dumps(state, sort_keys=True).encode())
        h.update(vcpu.pcpu.fxsave(vcpu.vmcs))
    for part in (board.save(), vcpus[0].dialects.save()):
        h.update(json.dumps(part, sort_keys=True, default=_plain).encode())
    return h.hexdigest()


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes | bytearray) else str(value)
