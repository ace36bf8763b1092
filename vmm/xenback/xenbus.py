"""Xenbus (public/io/xenbus.h): a front end and its back end meet in xenstore, by states.

A back end writes both ends' entries, waits for the guest's to say that it is ready, takes what that
one offers, and answers "connected"; nonsense leaves it where it was, or ends the connection.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from vmm.pv.xen.abi import BACKEND_DOMID, OWN_DOMID
from vmm.pv.xen.events import EventChannels, Listener, Status
from vmm.pv.xen.grants import GrantTable
from vmm.pv.xen.shared import Shared
from vmm.pv.xen.store import Store, StoreError

ALL_ONES: Final = (1 << 64) - 1


class BusState(IntEnum):
    """enum xenbus_state."""

    UNKNOWN = 0
    INITIALISING = 1
    INIT_WAIT = 2
    INITIALISED = 3
    CONNECTED = 4
    CLOSING = 5
    CLOSED = 6


@dataclass(frozen=True, slots=True)
class Means:
    """What a back end works with."""

    store: Store
    ports: EventChannels
    grants: GrantTable
    shared: Shared


class Backend:
    """The handshake of one device; its ring is the subclass's. A device to the board.

    A subclass has `connect` (true if the front end's offer is sound) and `disconnect`.
    """

    ready: frozenset[BusState] = frozenset((BusState.INITIALISED, BusState.CONNECTED))
    """What the front end says when its rings are there."""

    def __init__(
        self,
        kind: str,
        device: int,
        means: Means,
        front: Mapping[str, str],
        back: Mapping[str, str],
    ) -> None:
        """Write both ends into xenstore and wait for the guest."""
        self.name: Final = f"xen-{kind}-{device}"
        self.store: Final = means.store
        self.ports: Final = means.ports
        self.grants: Final = means.grants
        self.shared: Final = means.shared
        self.port = 0
        self.front: Final = f"/local/domain/{OWN_DOMID}/device/{kind}/{device}"
        self.back: Final = f"/local/domain/{BACKEND_DOMID}/backend/{kind}/{OWN_DOMID}/{device}"
        self._seed({"backend": self.back, "backend-id": str(BACKEND_DOMID), **front}, back)
        self.store.watch(f"{self.front}/state", self.back, self._changed)

    def _seed(self, front: Mapping[str, str], back: Mapping[str, str]) -> None:
        own = {"frontend": self.front, "frontend-id": str(OWN_DOMID), "online": "1", **back}
        for key, value in front.items():
            self.store.write(f"{self.front}/{key}", value.encode())
        self.store.write(f"{self.front}/state", str(int(BusState.INITIALISING)).encode())
        self.tell(own)
        self.say_state(BusState.INIT_WAIT)

    # ---- the subclass's ----

    def connect(self) -> bool:
        """Take what the front end offers; False, with nothing held, if that is unsound."""
        raise NotImplementedError

    def disconnect(self) -> None:
        """Give everything back."""
        raise NotImplementedError

    def kick(self) -> None:
        """The guest notifies."""
        raise NotImplementedError

    # ---- xenstore ----

    def _changed(self, _path: str, _token: str) -> None:
        state = self.number("state")
        if state in self.ready and not self.port:
            if self.connect():
                self.say_state(BusState.CONNECTED)
        elif state in (BusState.CLOSING, BusState.CLOSED):
            self._hang_up()
            self.say_state(BusState(state))
        elif state == BusState.INITIALISING:
            self._hang_up()
            self.say_state(BusState.INIT_WAIT)

    def number(self, key: str, *, default: int = 0) -> int:
        """Return what the front end says for a key; `default` for what is no small number."""
        value = self.store.tree.get(f"{self.front}/{key}", b"")
        return int(value) if value.isdigit() and len(value) < 11 else default

    def tell(self, values: Mapping[str, object]) -> None:
        """Write values of the back end's; a guest that filled the store does without."""
        for key, value in values.items():
            try:
                self.store.write(f"{self.back}/{key}", str(value).encode())
            except StoreError:
                return

    def say_state(self, state: BusState) -> None:
        """Write the back end's state, if it is another one."""
        if self.store.tree.get(f"{self.back}/state") != str(int(state)).encode():
            self.tell({"state": int(state)})

    # ---- the event channel ----

    def bind(self, port: int, listener: Listener) -> bool:
        """Take the other end of a port that the guest holds open for us."""
        channel = self.ports.channels.get(port)
        if channel is None or channel.status is not Status.UNBOUND:
            return False
        if channel.domain != BACKEND_DOMID:
            return False
        channel.status = Status.INTERDOMAIN
        self.port = port
        self.ports.listeners[port] = listener
        return True

    def _hang_up(self) -> None:
        if self.port:
            self._stop_listening()
            self.disconnect()
            self.port = 0

    def _stop_listening(self) -> None:
        """A port that the guest closed may be another back end's by now."""
        if self.ports.listeners.get(self.port) == self.kick:
            del self.ports.listeners[self.port]

    def give_up(self) -> None:
        """End the connection: what is on the ring makes no sense."""
        self._hang_up()
        self.say_state(BusState.CLOSED)

    def rebind(self, port: int) -> None:
        """Behind a restore: listen where the connection is now."""
        self._stop_listening()
        self.port = port
        if port:
            self.ports.listeners[port] = self.kick

    # ---- a device without registers ----

    def read(self, _offset: int, size: int) -> int:
        """No register."""
        return ALL_ONES >> 64 - 8 * size

    def write(self, _offset: int, _size: int, _value: int) -> None:
        """No register."""
