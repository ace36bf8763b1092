"""Who may use a page, and how (manual: "Determination of Access Rights", "Protection Keys")."""

from dataclasses import dataclass

from hwmodel.mem.circumstances import Circumstances
from hwmodel.mem.reference import Access

_USER, _WRITE, _NX = 4, 2, 1 << 63


@dataclass(frozen=True, slots=True)
class Rights:
    """What the guest's entries add up to; `int()` is the cached form of cext/mmu.h."""

    user: bool
    write: bool
    nx: bool
    key: int = 0
    dirty: bool = False
    is_global: bool = False

    def below(self, entry: int, size: int) -> "Rights":
        """Return what is left of the rights under one more entry of `size` bytes."""
        nx = self.nx or (size == 8 and bool(entry & _NX))
        return Rights(self.user and bool(entry & _USER), self.write and bool(entry & _WRITE), nx)

    def __int__(self) -> int:
        flags = self.user | self.write << 1 | self.nx << 2 | self.dirty << 3 | self.is_global << 4
        return flags | self.key << 8


def key_denies(c: Circumstances, rights: Rights, access: Access, user: bool) -> bool:
    """Whether the page's protection key stands in the way; fetches are never asked."""
    enabled = c.cr4.pke if rights.user else c.cr4.pks
    if access is Access.FETCH or not enabled or not c.is_long:
        return False
    bits = (c.pkru if rights.user else c.pkrs) >> 2 * rights.key
    access_disabled, write_disabled = bits & 1, bits & 2
    checks_writes = (user and rights.user) or c.cr0.wp
    return bool(access_disabled or (write_disabled and access is Access.WRITE and checks_writes))


def allows(c: Circumstances, rights: Rights, access: Access, user: bool) -> bool:
    """Whether an access by a user or a supervisor is allowed, with everything that forbids it."""
    if user:
        allowed = rights.user and _allows_user(rights, access)
    else:
        allowed = _allows_supervisor(c, rights, access)
    return allowed and not key_denies(c, rights, access, user)


def _allows_user(rights: Rights, access: Access) -> bool:
    if access is Access.FETCH:
        return not rights.nx
    return rights.write or access is Access.READ


def _allows_supervisor(c: Circumstances, rights: Rights, access: Access) -> bool:
    if access is Access.FETCH:
        return not rights.nx and not (rights.user and c.cr4.smep)
    if rights.user and c.cr4.smap and (c.implicit or not c.alignment_check):
        return False
    return access is Access.READ or rights.write or not c.cr0.wp
