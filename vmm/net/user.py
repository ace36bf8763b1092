"""User-mode network: the guest behind a router and its NAT, without any privilege on the host.

libslirp is the router: it answers ARP, DHCP, DNS and ping, and turns the guest's TCP and UDP into
sockets of this process. The guest reaches the host at the gateway's address (10.0.2.2). Its timers
run on the virtual clock, so a slow guest meets no time-out that a fast one would not; its sockets
are looked at in `poll()` and `fire()` only.
"""

import select
from typing import Any, Final

from vmm.devices.device import Clock
from vmm.errors import UsageError
from vmm.host.sources import Descriptor
from vmm.net import libslirp
from vmm.net.backend import Abilities, Port
from vmm.net.fragments import Reassembler
from vmm.net.guard import admitted
from vmm.net.libslirp import ffi
from vmm.net.options import Forward, NetOptions, Protocol

SOON_NS: Final = 2_000_000  # how long after a frame libslirp's own timers are asked for again
_FOREVER: Final = 0xFFFF_FFFF
_NO_TIMER: Final = 1000  # ms: what libslirp answers when none of its timers runs (200, 500)
_EVENTS: Final = (
    (libslirp.POLL_IN, select.POLLIN),
    (libslirp.POLL_OUT, select.POLLOUT),
    (libslirp.POLL_PRI, select.POLLPRI),
    (libslirp.POLL_ERR, select.POLLERR),
    (libslirp.POLL_HUP, select.POLLHUP),
)
_TO_HOST: Final = {
    flags: sum(host for ours, host in _EVENTS if flags & ours) for flags in range(32)
}


class UserNetwork:
    """One libslirp instance."""

    abilities = Abilities(segments=True, trusted=True)

    def __init__(self, clock: Clock, options: NetOptions) -> None:
        """Raises UsageError when the library is missing or a forwarded port is taken."""
        self._clock: Final = clock
        self._port = Port(clock)
        self._library: Final = libslirp.library()
        self._fragments: Final = Reassembler(lambda: self._on_clock(None))
        self._event: int | None = None
        self._wanted: list[tuple[int, int]] = []
        self._ready: dict[int, int] = {}
        self._came = False
        self._timeout: Final = ffi.new("uint32_t *")
        self._keep: Final = self._make_callbacks()
        self._slirp = self._library.slirp_new(_config(options, self._keep), self._keep[0], ffi.NULL)
        if self._slirp == ffi.NULL:
            raise UsageError(f"--net {options.text!r} was refused by libslirp; check its addresses")
        for forward in options.forwards:
            self._add_forward(forward, options.text)
        self._look()

    def plug_in(self, port: Port) -> None:
        """Deliver to `port` from now on."""
        self._port = port

    def send(self, frame: bytes) -> None:
        """Hand a frame to the router; what it answers at once comes before this returns."""
        passed = admitted(frame, self._fragments)
        if passed is None:
            return
        self._library.slirp_input(self._slirp, ffi.from_buffer("uint8_t[]", passed), len(passed))
        soon = self._clock.now + SOON_NS * self._clock.frequency // 1_000_000_000
        if self._event is None or soon < self._event:
            self._event = soon

    def next_event(self) -> int | None:
        """Return when libslirp's timers want to be looked at."""
        return self._event

    def fire(self) -> None:
        """Let libslirp's timers run."""
        self._turn(self._look())

    def poll(self) -> bool:
        """Move bytes between the host's sockets and the guest."""
        if not self._wanted and self._event is None:
            return False
        self._came = False
        self._turn(self._look())
        return self._came

    def descriptors(self) -> list[Descriptor]:
        """Return the host sockets: none while the guest has nothing to do with the host."""
        self._look()
        return self._wanted

    def expects(self) -> bool:
        """Whether a socket is open."""
        return bool(self.descriptors())

    def close(self) -> None:
        """Close all sockets."""
        if self._slirp != ffi.NULL:
            self._library.slirp_cleanup(self._slirp)
            self._slirp = ffi.NULL

    def _look(self) -> dict[int, int]:
        """Ask which sockets and timers matter; return the sockets that are ready."""
        self._wanted.clear()
        self._timeout[0] = _FOREVER
        self._library.slirp_pollfds_fill(self._slirp, self._timeout, self._keep[2], ffi.NULL)
        milliseconds = self._timeout[0]
        self._event = None
        if milliseconds < _NO_TIMER:
            wait = max(1, milliseconds) * self._clock.frequency // 1000
            self._event = self._clock.now + wait
        if not self._wanted:
            return {}
        poller = select.poll()
        for number, events in self._wanted:
            poller.register(number, events)
        return dict(poller.poll(0))

    def _turn(self, ready: dict[int, int]) -> None:
        self._ready = ready
        self._library.slirp_pollfds_poll(self._slirp, 0, self._keep[3], ffi.NULL)
        self._look()

    def _add_forward(self, forward: Forward, text: str) -> None:
        host, guest = _in_addr(forward.host.packed), _in_addr(forward.guest.packed)
        udp = forward.protocol is Protocol.UDP
        failed = self._library.slirp_add_hostfwd(
            self._slirp, udp, host, forward.host_port, guest, forward.guest_port
        )
        if failed:
            self.close()
            raise UsageError(
                f"--net {text!r}: {forward.protocol} port {forward.host_port} of {forward.host} "
                "cannot be had; free it or choose another"
            )

    # ---- called by libslirp; none may raise ----

    def _make_callbacks(self) -> list[Any]:
        """Return the record of callbacks and those given with each call; they must stay alive."""
        record = ffi.new("SlirpCb *")
        made: list[Any] = [record]
        kinds = {
            "send_packet": ("ssize_t(const void *, size_t, void *)", self._on_packet),
            "guest_error": ("void(const char *, void *)", _ignore),
            "clock_get_ns": ("int64_t(void *)", self._on_clock),
            "timer_free": ("void(void *, void *)", _ignore),
            "timer_mod": ("void(void *, int64_t, void *)", _ignore),
            "register_poll_fd": ("void(int, void *)", _ignore),
            "unregister_poll_fd": ("void(int, void *)", _ignore),
            "notify": ("void(void *)", _ignore),
            "timer_new_opaque": ("void *(int, void *, void *)", _no_timer),
        }
        callbacks = {name: ffi.callback(kind, function) for name, (kind, function) in kinds.items()}
        for name, callback in callbacks.items():
            setattr(record, name, callback)
        made.append(callbacks)
        made.append(ffi.callback("int(int, int, void *)", self._on_descriptor))
        made.append(ffi.callback("int(int, void *)", self._on_question))
        return made

    def _on_packet(self, data: Any, size: int, _opaque: Any) -> int:
        self._came = True
        self._port.deliver(ffi.buffer(data, size)[:])
        return size

    def _on_clock(self, _opaque: Any) -> int:
        return self._clock.ns()

    def _on_descriptor(self, number: int, events: int, _opaque: Any) -> int:
        self._wanted.append((number, _TO_HOST[events & 31]))
        return number

    def _on_question(self, number: int, _opaque: Any) -> int:
        ready = self._ready.get(number, 0)
        return sum(ours for ours, host in _EVENTS if ready & host)


def _ignore(*_arguments: Any) -> None:
    """Of no use here: libslirp is asked for its descriptors before every look."""


def _no_timer(*_arguments: Any) -> Any:
    """Only router advertisements have a timer of this kind, and IPv6 is off."""
    return ffi.NULL


def _in_addr(packed: bytes) -> Any:
    """Return an address in network order, as C keeps it."""
    return ffi.new("struct in_addr *", {"s_addr": int.from_bytes(packed, "little")})[0]


def _config(options: NetOptions, keep: list[Any]) -> Any:
    network = options.network
    config = ffi.new("SlirpConfig *")
    config.version = libslirp.CONFIG_VERSION
    config.restricted = options.restrict
    config.in_enabled = True  # IPv6 stays off: its router advertisements come at random times
    config.vnetwork = _in_addr(network.network_address.packed)
    config.vnetmask = _in_addr(network.netmask.packed)
    config.vhost = _in_addr((options.gateway or network[2]).packed)
    config.vnameserver = _in_addr((options.dns or network[3]).packed)
    config.vdhcp_start = _in_addr((options.dhcp_start or network[15]).packed)
    if options.hostname:
        keep.append(ffi.new("char[]", options.hostname.encode()))
        config.vhostname = keep[-1]
    config.if_mtu = config.if_mru = options.mtu
    return config
