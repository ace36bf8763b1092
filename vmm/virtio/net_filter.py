"""Which frames a network card takes in: its own, its groups', or all; the driver decides."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from vmm.devices.device import State

TABLE_MAX: Final = 64  # addresses remembered; with more of them every such frame is taken
MODE_SIZE: Final = 1


class Class(IntEnum):
    """Classes of control commands (virtio 1.2, "Network Device: Control Virtqueue")."""

    RX = 0
    MAC = 1


class Mode(IntEnum):
    """Commands of class RX: one byte, on or off."""

    PROMISC = 0
    ALLMULTI = 1
    ALLUNI = 2
    NOMULTI = 3
    NOUNI = 4
    NOBCAST = 5


TABLE_SET, ADDR_SET = 0, 1
_BROADCAST: Final = b"\xff" * 6


class Filter:
    """The receive filter of one card. Until the driver says otherwise everything is taken."""

    def __init__(self, mac: bytes) -> None:
        """`mac` is the card's address from the factory."""
        self.factory_mac: Final = mac
        self.reset()

    def reset(self) -> None:
        """Take everything."""
        self.mac = self.factory_mac
        self._modes = 1 << Mode.PROMISC
        self._unicast: frozenset[bytes] = frozenset()
        self._multicast: frozenset[bytes] = frozenset()

    def takes(self, frame: bytes) -> bool:
        """Whether the card takes this frame in."""
        if self._is(Mode.PROMISC):
            return True
        to = frame[:6]
        if to == _BROADCAST:
            return not self._is(Mode.NOBCAST)
        if to[0] & 1:
            listed = self._is(Mode.ALLMULTI) or to in self._multicast
            return listed and not self._is(Mode.NOMULTI)
        listed = to == self.mac or self._is(Mode.ALLUNI) or to in self._unicast
        return listed and not self._is(Mode.NOUNI)

    def command(self, data: bytes) -> bool:
        """Take a command of class RX or MAC; False if it makes no sense."""
        if len(data) < 2:
            return False
        body = data[2:]
        if data[0] == Class.RX:
            return self._set_mode(data[1], body)
        if data[:2] == bytes((Class.MAC, TABLE_SET)):
            return self._set_table(body)
        if data[:2] == bytes((Class.MAC, ADDR_SET)) and len(body) == 6:
            self.mac = body
            return True
        return False

    def save(self) -> State:
        """Return modes and addresses."""
        return {
            "mac": self.mac,
            "modes": self._modes,
            "unicast": b"".join(sorted(self._unicast)),
            "multicast": b"".join(sorted(self._multicast)),
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Take over what save() returned."""
        mac, modes = state["mac"], state["modes"]
        assert isinstance(mac, bytes)
        assert isinstance(modes, int)
        self.mac, self._modes = mac, modes
        self._unicast = _addresses(state["unicast"])
        self._multicast = _addresses(state["multicast"])

    def _is(self, mode: Mode) -> bool:
        return bool(self._modes >> mode & 1)

    def _set_mode(self, mode: int, body: bytes) -> bool:
        if mode not in list(Mode) or len(body) != MODE_SIZE:
            return False
        self._modes = self._modes & ~(1 << mode) | (body[0] != 0) << mode
        return True

    def _set_table(self, body: bytes) -> bool:
        """Two tables, unicast first: a count of 32 bits, then addresses."""
        tables = []
        for _ in range(2):
            count = int.from_bytes(body[:4], "little")
            end = 4 + 6 * count
            if len(body) < max(end, 4):
                return False
            tables.append(body[4:end])
            body = body[end:]
        for table, all_of_them in zip(tables, (Mode.ALLUNI, Mode.ALLMULTI), strict=True):
            if len(table) > 6 * TABLE_MAX:
                self._modes |= 1 << all_of_them
        self._unicast, self._multicast = (_addresses(t[: 6 * TABLE_MAX]) for t in tables)
        return True


def _addresses(table: object) -> frozenset[bytes]:
    assert isinstance(table, bytes)
    return frozenset(table[at : at + 6] for at in range(0, len(table), 6))
