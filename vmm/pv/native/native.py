"""The native dialect put together: leaves, hypercall page, and the calls of its parts."""

from collections.abc import Callable, Mapping
from functools import partial
from struct import unpack
from typing import TYPE_CHECKING, Final, Protocol

from vmm.pv.dialect import Hook, Hooks, Hypercall, Leaf, Machine, Processor, State
from vmm.pv.native.abi import (
    CALLS,
    ENTRY_BYTES,
    HYPERCALL_PAGE_MSR,
    LAST_LEAF,
    PAGES,
    SIGNATURE,
    TAG,
    VERSION,
    Argument,
    Call,
    Error,
    Feature,
    PageKind,
)
from vmm.pv.native.contract import Contract
from vmm.pv.native.events import Events
from vmm.pv.native.offer import QUANTUM_NS, Offer
from vmm.pv.native.pages import SharedPages
from vmm.pv.native.part import Handler, Part, Room
from vmm.pv.native.parts import PARTS
from vmm.pv.native.referee import Referee, Rule
from vmm.pv.shared import SharedArea

if TYPE_CHECKING:
    from vmm.devices.device import Device

_PAGE: Final = 4096


class Saved(Protocol):
    """What has a state."""

    def restore(self, state: State) -> None:
        """Take over what save() returned."""


class Native:
    """The native dialect of one VM; `contract` and `referee` are for the hypervisor's users."""

    name = "native"
    hides: frozenset[str] = frozenset()
    numbers = range(TAG, TAG + 0x1_0000)

    def __init__(
        self, machine: Machine, offer: Offer, parts: tuple[type[Part], ...] = PARTS
    ) -> None:
        """Build those of `parts` whose features are offered."""
        self._machine: Final = machine
        quantised = "quantised" in offer.options
        self.tsc_step = QUANTUM_NS * machine.tsc_hz // 1_000_000_000 if quantised else 0
        self.referee: Final = Referee(lambda: machine.clock.now)
        self.pages: Final = SharedPages(machine.memory)
        built = frozenset[Feature]().union(*(part.features for part in parts)) - offer.without
        self.contract: Final = Contract(machine, self.pages, self.referee, built)
        room = Room(
            machine, self.contract, self.pages, self.referee, [], offer.options, self.carry_out
        )
        self._room: Final = room
        self.parts: Final = {part.name: part(room) for part in parts if part.features & built}
        self._handlers: Final = self._all_calls(built)
        self._hypercall_page = 0
        self.hooks = self._make_hooks()
        self.events: Device | None = Events(machine.clock, list(self.parts.values()))

    def _all_calls(self, built: frozenset[Feature]) -> dict[int, Handler]:
        contract = self.contract
        handlers: dict[int, Handler] = {
            Call.NOP: lambda _cpu, _call: 0,
            Call.CONTRACT_ACCEPT: contract.accept,
            Call.CONTRACT_ACTIVATE: contract.activate,
            Call.CONTRACT_ACKNOWLEDGE: self._acknowledge,
            Call.CONTRACT_STATE: contract.tell,
            Call.SET_PAGE: self._set_page,
            Call.SET_VECTOR: contract.set_vector,
        }
        for part in self.parts.values():
            for call, handler in part.calls().items():
                if CALLS[call].feature in built:
                    handlers[int(call)] = handler
        return handlers

    def _make_hooks(self) -> Hooks:
        parts = list(self.parts.values())

        def all_of(moment: str) -> Hook | None:
            found = (getattr(part.hooks, moment) for part in parts)
            return _in_turn([hook for hook in found if hook is not None])

        rate = [part.hooks.rate_changed for part in parts if part.hooks.rate_changed is not None]
        return Hooks(
            entering=all_of("entering"),
            scheduled=all_of("scheduled"),
            descheduled=all_of("descheduled"),
            tsc_changed=all_of("tsc_changed"),
            rate_changed=partial(_call_all, rate) if rate else None,
            exited=self.referee.look,
            turn_over=next((p.hooks.turn_over for p in parts if p.hooks.turn_over), None),
        )

    # ---- discovery ----

    def leaves(self, base: int) -> Mapping[int, Leaf]:
        """Signature; version, features, hypercall page; the rate of the TSC."""
        offered = sum(1 << feature for feature in Feature if self._offers(feature))
        tsc = self._machine.tsc_hz
        return {
            base: Leaf(base + LAST_LEAF, *unpack("<3I", SIGNATURE)),
            base + 1: Leaf(VERSION, offered, 0, HYPERCALL_PAGE_MSR),
            base + 2: Leaf(tsc & 0xFFFF_FFFF, tsc >> 32, self._machine.cpus),
        }

    def _offers(self, feature: Feature) -> bool:
        return any(feature in part.features for part in self.parts.values()) and (
            self.contract.state[feature].name not in ("NOT_OFFERED", "REVOKED")
        )

    def msrs(self) -> frozenset[int]:
        """The hypercall page's."""
        return frozenset({HYPERCALL_PAGE_MSR})

    def read_msr(self, _cpu: Processor, _number: int) -> int | None:
        """Return what was written."""
        return self._hypercall_page

    def write_msr(self, _cpu: Processor, _number: int, value: int) -> bool:
        """Fill a page with the entries of all calls; #GP where there is no page."""
        area = SharedArea(self._machine.memory, value, _PAGE)
        if value % _PAGE or not area.is_memory():
            return False
        self._hypercall_page = value
        area.store(0, hypercall_page())
        return True

    # ---- hypercalls ----

    def refusal(self, cpu: Processor) -> int | None:
        """Only ring 0 may call."""
        return None if cpu.cpl() == 0 else -Error.NOT_ALLOWED

    def hypercall(self, cpu: Processor, call: Hypercall) -> int | None:
        """Carry out a call."""
        return self.carry_out(cpu, call)

    def carry_out(self, cpu: Processor, call: Hypercall) -> int:
        """Check number, contract and addresses; then let the part that has the call do it."""
        number = call.number - TAG
        handler = self._handlers.get(number)
        if handler is None:
            return self._refuse_number(cpu, number)
        row = CALLS[Call(number)]
        if not self.contract.works(row.feature):
            self.referee.report(Rule.INACTIVE_CALL, cpu, Call(number).name)
            return -Error.NOT_ACTIVE
        for argument, value in zip(row.arguments, call.arguments, strict=False):
            if argument.size and (error := self._address_error(argument, value)):
                return -error
        return handler(cpu, call)

    def _address_error(self, argument: Argument, gpa: int) -> int:
        if gpa % argument.align:
            return Error.MISALIGNED
        return 0 if self._machine.memory.hpa(gpa, argument.size) is not None else Error.BAD_ADDRESS

    def _refuse_number(self, cpu: Processor, number: int) -> int:
        if number in CALLS:
            self.referee.report(Rule.INACTIVE_CALL, cpu, Call(number).name)
            return -Error.NOT_OFFERED
        self.referee.report(Rule.UNKNOWN_CALL, cpu, f"{number + TAG:#x}")
        return -Error.NO_CALL

    def _set_page(self, cpu: Processor, call: Hypercall) -> int:
        """SET_PAGE: every kind of page, each with its feature."""
        number, gpa = call.arguments[:2]
        if number >= len(PageKind):
            return -Error.BAD_ARGUMENT
        kind = PageKind(number)
        if not self.contract.works(PAGES[kind].feature):
            self.referee.report(Rule.INACTIVE_CALL, cpu, f"SET_PAGE {kind.name}")
            return -Error.NOT_ACTIVE
        result = self.pages.set_page(cpu.index, kind, gpa)
        if not result:
            if kind is PageKind.CONTRACT:
                self.contract.publish()
            for part in self.parts.values():
                part.page_set(cpu, kind)
        return result

    def _acknowledge(self, cpu: Processor, call: Hypercall) -> int:
        result = self.contract.acknowledge(cpu, call)
        if not result:
            self._let_go(Feature(call.arguments[0]))
        return result

    def _let_go(self, feature: Feature) -> None:
        """A feature is gone: its pages are the guest's alone again."""
        for part in self.parts.values():
            if feature in part.features:
                part.released(feature)
        for kind, row in PAGES.items():
            if row.feature is feature:
                self.pages.take_back_kind(kind.name)

    # ---- life ----

    def attach(self, processors: list[Processor]) -> None:
        """Introduce the virtual CPUs."""
        self._room.cpus.extend(processors)
        self.contract.attach(processors)

    def begin_life(self, life: int) -> None:
        """Tell the guest by another generation in the contract page, and a notice."""
        self.contract.begin_life(life)
        for part in self.parts.values():
            part.begin_life(life)

    def reset(self, index: int) -> None:
        """Power-up or INIT."""
        self.pages.forget_processor(index)
        self.contract.reset(index)
        for part in self.parts.values():
            part.reset(index)
        if index == 0:
            self._hypercall_page = 0

    def save(self) -> State:
        """Contract, pages, and every part's state by its name."""
        return {
            "version": 1,
            "contract": self.contract.save(),
            "pages": self.pages.save(),
            "hypercall_page": self._hypercall_page,
            **{name: part.save() for name, part in self.parts.items()},
        }

    def restore(self, state: State) -> None:
        """Hand every part its state."""
        kept: dict[str, Saved] = {"contract": self.contract, "pages": self.pages, **self.parts}
        for name, part in kept.items():
            saved = state[name]
            assert isinstance(saved, dict)
            part.restore(saved)
        page = state["hypercall_page"]
        assert isinstance(page, int)
        self._hypercall_page = page


def _in_turn(hooks: list[Hook]) -> Hook | None:
    if not hooks:
        return None

    def run(cpu: Processor) -> None:
        for hook in hooks:
            hook(cpu)

    return hooks[0] if len(hooks) == 1 else run


def _call_all(hooks: list[Callable[[], None]]) -> None:
    for hook in hooks:
        hook()


def hypercall_page() -> bytes:
    """MOV EAX, number; VMCALL; RET for every number; INT3 between."""
    entries = (
        b"\xb8" + (TAG + number).to_bytes(4, "little") + b"\x0f\x01\xc1\xc3"
        for number in range(_PAGE // ENTRY_BYTES)
    )
    return b"".join(entry.ljust(ENTRY_BYTES, b"\xcc") for entry in entries)
