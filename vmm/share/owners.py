"""Who owns a file, as the guest sees it, and attributes in FUSE's layout.

A process without privilege can neither give files away nor become somebody else: its own files are
shown as root's, everybody else's as they are. A privileged one shows and sets what is there.
"""

import os
from dataclasses import dataclass
from typing import Final

from vmm.share.fuse import ATTR

KEEP: Final = -1  # os.chown's word for: leave it
MODE_BITS: Final = 0o1777  # no set-user-ID, no set-group-ID: a guest must not make such host files


@dataclass(frozen=True, slots=True)
class Owners:
    """Maps user and group numbers; `user` and `group` are this process's own."""

    user: int
    group: int

    @classmethod
    def of_process(cls) -> "Owners":
        """Return the mapping for this process."""
        return cls(os.geteuid(), os.getegid())

    @property
    def privileged(self) -> bool:
        """Whether files can be given away."""
        return self.user == 0

    def guest_user(self, user: int) -> int:
        """Return the user that the guest sees."""
        return 0 if user == self.user else user

    def guest_group(self, group: int) -> int:
        """Return the group that the guest sees."""
        return 0 if group == self.group and not self.privileged else group

    def host_ids(self, user: int, group: int) -> tuple[int, int]:
        """Return what to set on the host for the guest's numbers; KEEP: nothing."""
        if self.privileged:
            return user, group
        return KEEP if user == 0 else user, KEEP if group == 0 else group

    def attributes(self, status: os.stat_result) -> bytes:
        """Return struct fuse_attr."""
        times = (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)
        seconds = [max(0, t) // 1_000_000_000 for t in times]
        rest = [max(0, t) % 1_000_000_000 for t in times]
        return ATTR.pack(
            status.st_ino, status.st_size, status.st_blocks, *seconds, *rest,
            status.st_mode & 0xFFFF_FFFF, status.st_nlink & 0xFFFF_FFFF,
            self.guest_user(status.st_uid) & 0xFFFF_FFFF,
            self.guest_group(status.st_gid) & 0xFFFF_FFFF,
            status.st_rdev & 0xFFFF_FFFF, status.st_blksize & 0xFFFF_FFFF, 0,
        )  # fmt: skip
