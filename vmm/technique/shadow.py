"""VT-x without EPT: around each entry the guest's CR0, CR3, CR4 and EFER give way to the real ones.

Between entries the VMCS is the guest's own view, with the EPT that the hypervisor keeps as its map
of guest-physical memory; so every handler, snapshot and digest finds what it finds under EPT. While
the guest does not page, that EPT is in force: without it VT-x has no unpaged guests ("unrestricted
guest" needs EPT), and an identity map is all that it is then.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hwmodel.arch.controls import Primary, Secondary
from hwmodel.arch.paging import InvVpid
from hwmodel.arch.registers import Cr0, Cr4, Efer
from hwmodel.arch.vmcs import Field
from hwmodel.mem.ram import PAGE
from hwmodel.pcpu import Pcpu
from hwmodel.vmx.exit import Exit
from hwmodel.vmx.state import Vmcs
from vmm.memory.guest import GuestMemory
from vmm.memory.shadow.guest_walk import Denied, Found, Unbacked
from vmm.memory.shadow.page import Page
from vmm.memory.shadow.paging import ADDRESS, PF_FETCH, PF_U, PF_W, Access, P, Paging, U, W
from vmm.memory.shadow.tables import NoRoomError, ShadowTables, is_pae

_CR0, _CR3, _CR4 = Field.GUEST_CR0.index, Field.GUEST_CR3.index, Field.GUEST_CR4.index
_EFER, _CONTROLS = Field.GUEST_IA32_EFER.index, Field.SECONDARY_VM_EXEC_CONTROL.index
_PDPTE0, _VPID = Field.GUEST_PDPTR0.index, Field.VIRTUAL_PROCESSOR_ID.index
_FLAGS, _PKRS = Field.GUEST_RFLAGS.index, Field.GUEST_IA32_PKRS.index
_PG, _WP, _AC = int(Cr0.of(pg=1)), int(Cr0.of(wp=1)), 1 << 18
_PAE, _PCIDE, _NXE = int(Cr4.of(pae=1)), int(Cr4.of(pcide=1)), int(Efer.of(nxe=1))
_SMAP, _KEYS = int(Cr4.of(smap=1)), int(Cr4.of(pke=1, pks=1))
_DEVICES: Final = 64  # pages, and kinds of access to each
_CANONICAL: Final = (0, 0x1_FFFF)  # bits 63 to 47, whatever the paging mode
_CR4_READ: Final = _PAE | _PCIDE
_NEEDS_EPT: Final = int(Secondary.of(enable_ept=1, unrestricted_guest=1))
_EXITING: Final = int(Primary.of(cr3_load_exiting=1, cr3_store_exiting=1, invlpg_exiting=1))
_PF: Final = 1 << 14
_LMA: Final = 1 << 10
Enter = Callable[[int], Exit]
Root = tuple[Page, ...]


@dataclass(frozen=True, slots=True)
class DevicePage:
    """Where a guest-physical page without memory was found: by the entry in place `leaf`."""

    page: int
    leaf: tuple[int, int]
    entry: int


class Shadow:
    """The shadow root of one virtual CPU."""

    def __init__(
        self, vmcs: Vmcs, pcpu: Pcpu, memory: GuestMemory, tables: ShadowTables, has_1g: bool
    ) -> None:
        """Nothing is loaded; `prepare` comes before the first entry."""
        self._vmcs: Final = vmcs
        self._fields: Final = vmcs.fields
        self._pcpu = pcpu
        self._memory: Final = memory
        self._tables: Final = tables
        self._has_1g: Final = has_1g
        self._loaded: tuple[int, ...] = ()
        self._root: Root = ()
        self._generation = -1
        self._paging: Paging | None = None
        self._devices: dict[tuple[int, int, int], DevicePage] = {}

    @property
    def tables(self) -> ShadowTables:
        """The shadow pages of the whole VM."""
        return self._tables

    def state(self) -> list[object]:
        """Return which root is loaded, for a copy together with that of `tables`."""
        return [self._loaded, self._root, self._generation, self._paging]

    def set_state(self, state: list[Any]) -> None:
        """Take over a copy of what `state` returned."""
        self._loaded, self._root, self._generation, self._paging = state

    def prepare(self) -> None:
        """Set the controls that shadow paging asks for."""
        vmcs = self._vmcs
        vmcs[Field.CPU_BASED_VM_EXEC_CONTROL] |= _EXITING
        vmcs[Field.EXCEPTION_BITMAP] |= _PF
        vmcs[Field.CR0_GUEST_HOST_MASK] |= _WP
        self._loaded = ()

    def move_to(self, pcpu: Pcpu) -> None:
        """The virtual CPU goes on on another physical one."""
        self._pcpu = pcpu

    def entry_of(self, native: Enter) -> Enter:
        """Return what enters the guest in place of `native`."""
        fields, tables = self._fields, self._tables

        def enter(until: int) -> Exit:
            cr0 = fields[_CR0]
            if not cr0 & _PG:
                tables.unseen = True
                return native(until)
            cr3, cr4, efer = fields[_CR3], fields[_CR4], fields[_EFER]
            pdptes = () if efer & _LMA else tuple(fields[_PDPTE0 : _PDPTE0 + 4])
            if (cr0 & _WP, cr3, cr4, efer, *pdptes) != self._loaded or self._is_lost():
                self._load((cr0 & _WP, cr3, cr4, efer, *pdptes))
            fields[_CONTROLS] &= ~_NEEDS_EPT
            fields[_CR0], fields[_EFER] = cr0 | _WP, efer | _NXE
            fields[_CR4] = cr4 & ~_PCIDE | _PAE
            self._show_root(efer)
            vmexit = native(until)
            fields[_CONTROLS] |= _NEEDS_EPT
            fields[_CR0] = fields[_CR0] & ~_WP | cr0 & _WP
            fields[_CR3], fields[_EFER] = cr3, efer
            fields[_CR4] = fields[_CR4] & ~_CR4_READ | cr4 & _CR4_READ
            for number, pdpte in enumerate(pdptes):
                fields[_PDPTE0 + number] = pdpte
            return vmexit

        return enter

    def _show_root(self, efer: int) -> None:
        fields = self._fields
        fields[_CR3] = self._root[0].at
        if not efer & _LMA:
            for number, page in enumerate(self._root[1:]):
                fields[_PDPTE0 + number] = page.at | 1

    def _is_lost(self) -> bool:
        return self._generation != self._tables.generation

    # ---- roots ----

    def reload(self) -> None:
        """The guest did what empties TLBs: compare tables before the next entry, and flush."""
        self._devices.clear()
        self._loaded = ()

    def _load(self, state: tuple[int, ...]) -> None:
        tables = self._tables
        self._devices.clear()
        if not self._is_lost():
            for page in self._root:
                page.pins -= 1
        tables.sync()
        self._paging = self._read_paging()
        try:
            self._root = self._find_root(self._paging)
        except NoRoomError:
            tables.forget()
            self._root = self._find_root(self._paging)
        for page in self._root:
            page.pins += 1
        self._generation, self._loaded = tables.generation, state
        self._pcpu.invvpid(InvVpid.SINGLE_CONTEXT, self._fields[_VPID])

    def _read_paging(self) -> Paging:
        f, model = self._fields, self._pcpu.capabilities
        a, b, c, d = f[_PDPTE0 : _PDPTE0 + 4]
        return Paging(
            Cr0(f[_CR0]), f[_CR3], Cr4(f[_CR4]), Efer(f[_EFER]), (a, b, c, d),
            model.physical_bits, self._has_1g,
        )  # fmt: skip

    def _find_root(self, p: Paging) -> Root:
        tables = self._tables
        if p.is_long:
            return (self._top(p.cr3, 5 if p.cr4.la57 else 4, 8, 0),)
        if is_pae(p):
            parts = [self._top(e, 2, 8, 0) if e & 1 else tables.empty(2) for e in p.pdptes]
        else:
            parts = [self._top(p.cr3, 2, 4, part) for part in range(4)]
        return (self._page_of_pdptes(parts), *parts)

    def _top(self, gpa: int, level: int, size: int, part: int) -> Page:
        mask = 0xFFFF_F000 if size == 4 else (1 << 52) - PAGE
        frame = self._memory.hpa(gpa & mask, PAGE)
        if frame is None:
            return self._tables.empty(level)
        return self._tables.table(frame, level, size, part)

    def _page_of_pdptes(self, parts: list[Page]) -> Page:
        """The processor reads the four entries from memory at an entry."""
        page = self._tables.pdptes(tuple(part.at for part in parts))
        for number, part in enumerate(parts):
            entry = (part.at | 1).to_bytes(8, "little")
            self._memory.ram.view[page.at + 8 * number : page.at + 8 * number + 8] = entry
        return page

    # ---- what the guest does ----

    def fault(self, linear: int, error: int) -> int | Denied | Unbacked | Found:
        """Map what a page fault asked for; else the guest's own fault, or where no memory is.

        Returns 0 when it is mapped, or the guest-physical address of a device; what was found where
        CR0.WP = 0 lets the guest write and an entry cannot.
        """
        assert self._paging is not None
        f = self._fields
        kind = linear >> 12, error & (PF_W | PF_U | PF_FETCH), f[_FLAGS] & _AC
        device = self._devices.get(kind)
        if device is not None and self._tables.walker.entry_at(*device.leaf) == device.entry:
            return device.page | linear & PAGE - 1
        access = Access(
            bool(error & PF_W), bool(error & PF_U), bool(error & PF_FETCH), bool(f[_FLAGS] & _AC)
        )
        keys = self._vmcs.native.pkru, f[_PKRS]
        found = self._tables.walker.walk(self._paging, linear, access, keys)
        if isinstance(found, Denied | Unbacked):
            return found
        if access.write and not found.rights.write:
            return found
        try:
            mapped = self._tables.map(self.root_for(linear), linear, found, access.write)
        except NoRoomError:
            self._tables.forget()
            return 0
        if mapped:
            return 0
        self._keep_device(kind, found)
        return found.gpa

    def _keep_device(self, kind: tuple[int, int, int], found: Found) -> None:
        """Remember the way to a device's page, until the guest does what empties TLBs."""
        assert self._paging is not None
        if len(self._devices) < _DEVICES and not self._fields[_CR4] & _KEYS:
            leaf = found.steps[-1]
            place = leaf.hpa, self._paging.entry_size
            self._devices[kind] = DevicePage(found.gpa & -PAGE, place, leaf.entry)

    def root_for(self, linear: int) -> Page:
        """Return the page where the processor's walk of `linear` begins."""
        return self._root[0] if len(self._root) == 1 else self._root[1 + (linear >> 30 & 3)]

    def reach(self, linear: int, size: int, *, write: bool, user: bool) -> int | None:
        """Return the machine address of what the shadow maps for the guest's supervisor or user.

        None where it does not, or where more than its entries decides: ask the processor's model.
        """
        root, entries = self._root, self._tables.entries
        if not self._loaded or self._is_lost() or not self._fields[_CR0] & _PG or len(root) > 1:
            return None
        one_page = (linear & PAGE - 1) + size <= PAGE
        if not one_page or self._fields[_CR4] & _KEYS or linear >> 47 not in _CANONICAL:
            return None
        at, rights, shift = root[0].at, U | W, 3 + 9 * root[0].level
        while shift > 3:
            entry = entries[at + 8 * (linear >> shift & 511) >> 3]
            if not entry & P:
                return None
            at, rights, shift = entry & ADDRESS, rights & entry, shift - 9
        if write and not rights & W:
            return None
        if (not rights & U) if user else (rights & U and self._fields[_CR4] & _SMAP):
            return None
        return at | linear & PAGE - 1

    def wrote(self, linear: int, size: int) -> None:
        """Software wrote memory for the guest: a table there is out of step."""
        for at in (linear, linear + size - 1):
            gpa = self._pcpu.translate(self._vmcs, at)
            hpa = self._memory.hpa(gpa) if isinstance(gpa, int) else None
            if hpa is not None:
                self._tables.wrote(hpa, 1)

    def wrote_unseen(self) -> None:
        """The guest ran an instruction on the EPT: every table may be out of step."""
        self._tables.suspect_all()

    def invalidate(self, linear: int) -> None:
        """INVLPG: entries that map `linear` are compared, and leave the TLB."""
        self._devices.clear()
        if not self._root or self._is_lost():
            return
        vpid = self._fields[_VPID]
        if self._tables.sync_address(self.root_for(linear), linear):
            self._pcpu.invvpid(InvVpid.ADDRESS, vpid, linear)
        else:
            self._pcpu.invvpid(InvVpid.SINGLE_CONTEXT, vpid)
