"""Records as a timeline: slices, instants, flows and counters on tracks, whatever draws them.

Tracks: one a vCPU, one for the physical CPU, one a virtio device. On a vCPU's track there is
`guest` while it runs, and from an exit to the next entry `EXIT:NAME`; in that the `handler`, with
`device:NAME` for what a device made it wait, then perhaps `halted`, `runnable`, `preempted`.
Lengths are the ledger's: slices of a name, without those inside them, sum to the heading of that
name. What is spread over a run in the guest stands together: `injection` before it, `walk` behind.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.operations import Operation
from hwmodel.cpu.recording import Note
from vmm.observe.trace.places import Places
from vmm.observe.trace.records import Enter, Leave, Spent, Told, Trace

_NAMES: Final = {int(reason): reason.name for reason in (*ExitReason, *Operation)}
_VALID: Final = 1 << 31
Args = dict[str, int | str]


class Track(NamedTuple):
    """Where things are drawn: ("vcpu", n), ("pcpu", n), ("device", n), ("counter", n)."""

    kind: str
    number: int
    name: str


class Begin(NamedTuple):
    """A slice begins; flows with the numbers in `ends` arrive, those in `starts` depart."""

    track: Track
    cycle: int
    name: str
    args: Args
    starts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()


class End(NamedTuple):
    """The innermost slice of the track ends."""

    track: Track
    cycle: int


class Instant(NamedTuple):
    """Something without a length."""

    track: Track
    cycle: int
    name: str
    args: Args
    starts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()


class Count(NamedTuple):
    """A counter has a new value."""

    track: Track
    cycle: int
    value: int


_ACCESSES: Final = frozenset({Note.PORT_IN, Note.PORT_OUT, Note.MMIO_READ, Note.MMIO_WRITE})
Item = Begin | End | Instant | Count
WALKS: Final = Track("counter", 0, "page walks")
REFERENCES: Final = Track("counter", 1, "walk references")
RUNNABLE: Final = Track("counter", 2, "runnable vCPUs")
EXITS: Final = Track("counter", 3, "VM exits")
COUNTERS: Final = (WALKS, REFERENCES, RUNNABLE, EXITS)
PCPU: Final = Track("pcpu", 0, "pCPU 0")


class _Vcpu:
    """What is open on a vCPU's track."""

    def __init__(self, number: int) -> None:
        self.track: Final = Track("vcpu", number, f"vCPU {number}")
        self.open: Final[list[str]] = []
        self.entered: Enter | None = None
        self.runs = number == 0
        self.expected: Final[dict[int, int]] = {}
        """By vector: the flow that its injection ends."""
        self.woken: int | None = None

    def begin(self, cycle: int, name: str, args: Args | None = None) -> Begin:
        self.open.append(name)
        return Begin(self.track, cycle, name, args or {})

    def close(self, cycle: int, down_to: int = 0) -> Iterator[End]:
        while len(self.open) > down_to:
            self.open.pop()
            yield End(self.track, cycle)


class Timeline:
    """Iterate over it once for the items, in the order of time on each track."""

    def __init__(self, trace: Trace) -> None:
        """Nothing is drawn yet."""
        head = trace.header
        self._trace: Final = trace
        self._places: Final = Places(head.places)
        self._vcpus: Final = [_Vcpu(n) for n in range(head.cpus)]
        self.devices: Final = [Track("device", n, name) for n, name in enumerate(head.virtio)]
        self._busy: Final[dict[tuple[int, int], list[int]]] = {}
        """By device and queue: flows of notifications that were not answered yet."""
        self._cause: Track | None = None
        self._flows = 0
        self._on_pcpu: int | None = None
        self._last = 0
        self._left: _Vcpu | None = None
        """Who ran last, while nobody runs."""
        self._latest: _Vcpu | None = None
        self._drawn: Final = dict.fromkeys(Spent._fields, 0)
        self._ledger: Final = {name: head.ledger.get(name, 0) for name in Spent._fields}
        self._left_at = 0
        self._price: Spent | None = None
        self._walked = (0, 0)
        self._notes: Final[list[Told]] = []

    @property
    def tracks(self) -> list[Track]:
        """Every track but the counters."""
        return [*(vcpu.track for vcpu in self._vcpus), PCPU, *self.devices]

    def __iter__(self) -> Iterator[Item]:
        for record in self._trace:
            if record.vcpu >= len(self._vcpus):
                continue
            self._last = record.cycle
            if isinstance(record, Told):
                self._notes.append(record)
                continue
            for name, cycles in zip(Spent._fields, record.spent, strict=True):
                self._drawn[name] += cycles
            if isinstance(record, Enter):
                yield from self._enter(self._vcpus[record.vcpu], record)
            else:
                yield from self._leave(self._vcpus[record.vcpu], record)
        yield from self._finish()

    def _finish(self) -> Iterator[Item]:
        """What was booked behind the last record: the instruction that ended the run."""
        rest = {name: max(0, cycles - self._drawn[name]) for name, cycles in self._ledger.items()}
        yield from self._between(self._last, Spent(**rest))
        end = self._last + sum(rest.values())
        if rest["guest"]:
            track = self._vcpus[0].track if self._latest is None else self._latest.track
            yield from _part(track, end - rest["guest"], end, "guest")
        yield from _part(PCPU, end - rest["guest"] - rest["idle"], end - rest["guest"], "idle")
        self._last = end
        for vcpu in self._vcpus:
            yield from vcpu.close(self._last)
        yield from self._free_pcpu(self._last)

    # ---- entries and exits ----

    def _between(self, now: int, spent: Spent) -> Iterator[Item]:
        """Draw what software did since the last exit, now that it is known what it took."""
        busy = self._left_at
        left, self._left = self._left, None
        if self._price is not None:  # booked with the exit
            spent = spent._replace(
                exit=spent.exit + self._price.exit,
                hypervisor=spent.hypervisor + self._price.hypervisor,
                device=spent.device + self._price.device,
            )
            self._price = None
        if left is not None:
            yield from _part(left.track, busy, busy + spent.exit, "exit")
            busy += spent.exit
            yield from self._handler(left.track, busy, spent, is_exit=bool(left.open))
            busy += spent.hypervisor + spent.device
        for told in self._notes:
            yield from self._told(told, max(busy, told.cycle) if told.cycle <= now else now)
        self._notes.clear()

    def _handler(self, track: Track, at: int, spent: Spent, *, is_exit: bool) -> Iterator[Item]:
        """Devices that fire between turns need the hypervisor too; there is no exit around them."""
        end = at + spent.hypervisor + spent.device
        if not is_exit:
            track = PCPU
            if at == end:
                return
        yield Begin(track, at, "handler", {})
        accesses = [told for told in self._notes if told.note in _ACCESSES] if is_exit else []
        for told in accesses:  # the first had to be waited for
            until = at + spent.device
            since = at if told is accesses[0] else until
            yield Begin(track, since, f"device:{self._place(told)}", _access(told))
            yield End(track, until)
        if spent.device and not accesses:
            yield from _part(track, at, at + spent.device, "device:none")
        yield End(track, end)

    def _enter(self, vcpu: _Vcpu, enter: Enter) -> Iterator[Item]:
        spent = enter.spent
        yield from self._between(enter.cycle, spent)
        yield from vcpu.close(enter.cycle - spent.entry - spent.injection - spent.guest)
        at = enter.cycle - spent.entry - spent.injection
        if spent.guest:
            yield vcpu.begin(at - spent.guest, "guest", {"what": "done by the handler"})
            yield from vcpu.close(at)
        yield from _part(vcpu.track, at, at + spent.injection, "injection")
        yield from _part(vcpu.track, at + spent.injection, enter.cycle, "entry")
        if enter.event & _VALID:
            yield self._inject(vcpu, enter)
        vcpu.entered = enter
        if self._on_pcpu != enter.vcpu:
            yield from self._free_pcpu(enter.cycle)
            self._on_pcpu = enter.vcpu
            yield Begin(PCPU, enter.cycle, vcpu.track.name, {})

    def _leave(self, vcpu: _Vcpu, leave: Leave) -> Iterator[Item]:
        yield from self._run(vcpu, leave)
        self._left, self._left_at, self._cause = vcpu, leave.left_at, None
        self._price = leave.spent
        self._latest = vcpu
        if leave.is_stop:
            return
        name = _NAMES.get(leave.reason & 0xFFFF, str(leave.reason & 0xFFFF))
        args: Args = {
            "rip": leave.rip, "qualification": leave.qualification, "cycle": leave.cycle,
            "exit": leave.sequence, "instructions": leave.instructions,
        }  # fmt: skip
        if leave.physical:
            args["gpa"] = leave.physical
        yield vcpu.begin(leave.left_at, f"EXIT:{name}", args)
        yield Count(EXITS, leave.left_at, leave.sequence)

    def _run(self, vcpu: _Vcpu, leave: Leave) -> Iterator[Item]:
        """Draw the time from the entry to this exit, by what the ledger says of it."""
        entered, vcpu.entered = vcpu.entered, None
        if entered is None:
            return
        spent, at = leave.spent, entered.cycle
        for name in ("entry", "injection"):
            cycles = getattr(spent, name)
            yield from _part(vcpu.track, at, at + cycles, name)
            at += cycles
        args: Args = {"rip": entered.rip, "cycle": entered.cycle}
        end = leave.left_at - spent.walk - spent.idle
        yield Begin(vcpu.track, at, "guest", args)
        yield End(vcpu.track, end)
        yield from _part(vcpu.track, end, end + spent.idle, "halted")
        yield from self._walks(vcpu, leave, end + spent.idle)

    def _inject(self, vcpu: _Vcpu, enter: Enter) -> Instant:
        vector = enter.event & 0xFF
        flow = vcpu.expected.pop(vector, None) if not enter.event & 0x700 else None
        ends = () if flow is None else (flow,)
        return Instant(vcpu.track, enter.cycle, f"inject {vector:#x}", {"vector": vector}, (), ends)

    def _walks(self, vcpu: _Vcpu, leave: Leave, at: int) -> Iterator[Item]:
        """The counts are the physical CPU's: what is new belongs to the vCPU that ran."""
        walks, references = leave.walks - self._walked[0], leave.references - self._walked[1]
        self._walked = leave.walks, leave.references
        if walks <= 0 and not leave.spent.walk:
            return
        yield Begin(vcpu.track, at, "walk", {"walks": walks, "references": references})
        yield End(vcpu.track, at + leave.spent.walk)
        yield Count(WALKS, leave.left_at, leave.walks)
        yield Count(REFERENCES, leave.left_at, leave.references)

    def _free_pcpu(self, cycle: int) -> Iterator[Item]:
        if self._on_pcpu is not None:
            self._on_pcpu = None
            yield End(PCPU, cycle)

    # ---- notes ----

    def _told(self, told: Told, at: int) -> Iterator[Item]:
        vcpu = self._vcpus[told.vcpu]
        match told.note:
            case Note.HALT | Note.WAKE | Note.SWITCH | Note.IDLE:
                yield from self._schedule(vcpu, told, at)
            case Note.ACCEPT:
                yield self._accept(vcpu, told, at)
            case Note.KICK:
                yield from self._kick(vcpu, told, at)
            case Note.VIRTIO_NOTIFY | Note.VIRTIO_INTERRUPT:
                yield from self._virtio(vcpu, told, at)
            case _:
                pass

    def _place(self, told: Told) -> str:
        is_port = told.note in (Note.PORT_IN, Note.PORT_OUT)
        return self._places.port(told.a) if is_port else self._places.memory(told.a)

    def _schedule(self, vcpu: _Vcpu, told: Told, at: int) -> Iterator[Item]:
        if told.note is Note.IDLE:
            yield from self._free_pcpu(at - told.a)
            yield from _part(PCPU, at - told.a, at, "idle")
        elif told.note is Note.HALT:
            yield from vcpu.close(at, 1)
            yield vcpu.begin(at, "halted")
            yield self._count_runnable(vcpu, at, runs=False)
        elif told.note is Note.WAKE:
            yield from vcpu.close(at, 1)
            yield self._wake(vcpu, at)
            yield vcpu.begin(at, "runnable")
            yield self._count_runnable(vcpu, at, runs=True)
        else:
            yield from self._switch(self._vcpus[told.a % len(self._vcpus)], at)

    def _switch(self, left: _Vcpu, at: int) -> Iterator[Item]:
        yield from self._free_pcpu(at)
        if left.runs and "preempted" not in left.open and "runnable" not in left.open:
            yield left.begin(at, "preempted")

    def _wake(self, vcpu: _Vcpu, cycle: int) -> Instant:
        ends = () if vcpu.woken is None else (vcpu.woken,)
        vcpu.woken = None
        return Instant(vcpu.track, cycle, "wake", {}, (), ends)

    def _count_runnable(self, vcpu: _Vcpu, cycle: int, *, runs: bool) -> Count:
        vcpu.runs = runs
        return Count(RUNNABLE, cycle, sum(each.runs for each in self._vcpus))

    # ---- flows ----

    def _flow(self) -> int:
        self._flows += 1
        return self._flows

    def _running(self) -> Track:
        """Who causes what happens now: a device, the vCPU whose exit is handled, or the pCPU."""
        if self._cause is not None:
            return self._cause
        return PCPU if self._on_pcpu is None else self._vcpus[self._on_pcpu].track

    def _accept(self, vcpu: _Vcpu, told: Told, at: int) -> Instant:
        flow = self._flow()
        vcpu.expected[told.b] = flow
        name = f"IRQ {told.b:#x} to {vcpu.track.name}"
        return Instant(self._running(), at, name, {"vector": told.b}, (flow,))

    def _kick(self, vcpu: _Vcpu, told: Told, at: int) -> Iterator[Item]:
        if told.a >= len(self._vcpus):
            return
        target = self._vcpus[told.a]
        target.woken = self._flow()
        name = f"kick {target.track.name}"
        yield Instant(vcpu.track, at, name, {}, (target.woken,))

    def _virtio(self, vcpu: _Vcpu, told: Told, at: int) -> Iterator[Item]:
        """Available, by the vCPU; used, by the device; then its interrupt."""
        if told.a >= len(self.devices):
            return
        device, waiting = self.devices[told.a], self._busy.setdefault((told.a, told.b), [])
        if told.note is Note.VIRTIO_NOTIFY:
            flow, onward = self._flow(), self._flow()
            waiting.append(onward)
            yield Instant(vcpu.track, at, f"{device.name} avail {told.b}", {}, (flow,))
            yield Instant(device, at, f"avail {told.b}", {}, (onward,), (flow,))
            return
        self._cause = device
        yield Instant(device, at, f"used {told.b}", {}, (), tuple(waiting))
        waiting.clear()


def _access(told: Told) -> Args:
    return {"address": told.a, "size": told.b, "value": told.c}


def _part(track: Track, at: int, until: int, name: str) -> Iterator[Item]:
    """A slice with nothing in it; none if it has no length."""
    if until > at:
        yield Begin(track, at, name, {})
        yield End(track, until)
