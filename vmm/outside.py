"""Virtio devices with an end on the host: network cards, console, entropy, balloon, folders.

Each kind is imported when it is asked for: a guest without any starts in half of the time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from vmm.config import Config, Console
from vmm.devices.device import Clock
from vmm.errors import UsageError
from vmm.host.channel import Output, open_channel
from vmm.host.sources import Door, HostSources
from vmm.host.taped import TapedChannel
from vmm.placement import Placement, split_placement

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.net.backend import Backend
    from vmm.net.options import NetOptions
    from vmm.share.server import FuseServer
    from vmm.virtio.balloon import Balloon
    from vmm.virtio.balloon_options import BalloonOptions
    from vmm.virtio.console import Console as ConsoleDevice
    from vmm.virtio.console import ConsolePort
    from vmm.virtio.device import Context, VirtioDevice
    from vmm.virtio.net import Net
    from vmm.virtio.rng import Entropy

FIRST_MAC: Final = 0x525400123456  # QEMU's
CONNECTING: Final = 0x80  # added on the side that connects: two guests on a cable must differ


class Card(Protocol):
    """A network card, as its cable sees it."""

    @property
    def name(self) -> str:
        """What a tape calls it."""

    def receive(self, frame: bytes) -> None:
        """Take a frame."""

    @property
    def rescheduled(self) -> "Callable[[], None]":
        """Hears that the next event is another."""


class Outside:
    """What the options ask for, opened; `devices` makes the devices."""

    def __init__(self, config: Config, clock: Clock, sources: HostSources, screen: Door) -> None:
        """Open everything. Raises UsageError, with all closed again, if something cannot be."""
        self._config: Final = config
        self._sources: Final = sources
        self._closers: Final[list[Callable[[], None]]] = []
        self.terminal: Output | None = None
        self.cards: Final[list[Net]] = []
        self.balloon: Balloon | None = None
        try:
            self._nets = [self._open_net(n, net, clock) for n, net in enumerate(config.net)]
            self._ports = self._open_ports(screen)
            self._shares = [self._open_share(n, text) for n, text in enumerate(config.shares)]
            self._entropy = self._open_entropy()
            self._balloon = self._read_balloon()
        except UsageError:
            self.close()
            raise

    def devices(
        self, context: "Context", *, cards: bool = True
    ) -> "Iterator[tuple[VirtioDevice, Placement]]":
        """Make the devices, wired to their backends; without `cards` no network cards."""
        for number, (options, backend, place) in enumerate(self._nets):
            if backend is not None and cards:
                yield self._card(context, number, options, backend, place), place
        if self._ports:
            yield self._console(context), Placement()
        for number, (server, tag, place) in enumerate(self._shares):
            from vmm.share.taped import TapedServer
            from vmm.virtio.fs import Fs

            taped = TapedServer(f"fs{number}", server, self._sources)
            yield Fs(f"fs{number}", context, taped, tag, packed=place.packed), place
        if self._entropy is not None:
            from vmm.virtio.rng import Rng

            entropy, place = self._entropy
            yield Rng("rng", context, entropy, packed=place.packed), place
        if self._balloon is not None:
            from vmm.virtio.balloon import Balloon

            wanted, place = self._balloon
            self.balloon = Balloon(
                "balloon", context, target=wanted.target, poll_ns=wanted.poll_ns,
                reporting=wanted.reporting, deflate_on_oom=wanted.deflate_on_oom,
                packed=place.packed,
            )  # fmt: skip
            yield self.balloon, place

    def has_devices(self) -> bool:
        """Whether `devices` would make any."""
        made = (self._nets, self._ports, self._shares, self._entropy, self._balloon)
        return any(made)

    @contextmanager
    def kept_entropy(self) -> Iterator[None]:
        """While the devices go back to their power-on state: go on drawing where we were."""
        entropy = self._entropy[0] if self._entropy else None
        position = entropy.position if entropy else 0
        yield
        if entropy:
            entropy.position = position

    def close(self) -> None:
        """Let go of everything on the host."""
        while self._closers:
            self._closers.pop()()

    def _replays(self) -> bool:
        """Whether all that comes from outside is on a tape already."""
        return self._sources.tape is not None and self._sources.tape.closed

    # ---- opening ----

    def _open_net(
        self, number: int, net: Any, clock: Clock
    ) -> "tuple[NetOptions | None, Any, Placement]":
        if not isinstance(net, str):
            return None, net, Placement()
        from vmm.net.options import Kind, NetOptions
        from vmm.net.socket_link import SocketLink
        from vmm.net.taped import TapedBackend
        from vmm.net.user import UserNetwork

        text, place = split_placement("--net", net)
        options = NetOptions.parse(text)
        backend: Backend | None = None
        if options.kind is Kind.NONE:
            return options, None, place
        if self._replays():
            pass
        elif options.kind is Kind.USER:
            backend = UserNetwork(clock, options)
        elif options.kind is Kind.SOCKET:
            backend = SocketLink(options)
        if backend is not None:
            self._closers.append(backend.close)
        kind = UserNetwork if options.kind is Kind.USER else SocketLink
        taped = TapedBackend(f"net{number}", backend, self._sources, kind.abilities)
        return options, taped, place

    def _open_ports(self, screen: Door) -> "list[ConsolePort]":
        if self._config.console is not Console.VIRTIO and not self._config.channels:
            return []
        from vmm.virtio.console import PORTS_MAX, ConsolePort

        ports = []
        if self._config.console is Console.VIRTIO:
            self.terminal = Output(screen)
            ports.append(ConsolePort(self.terminal, is_console=True))
        elif self._config.channels:
            ports.append(ConsolePort(Output(), is_console=True))  # port 0 is always a console
        for text in self._config.channels:
            name, _, words = text.partition(",")
            if not name or not name.isprintable() or "/" in name or len(name.encode()) > 64:
                raise UsageError(f"--channel {text!r} has no name; write NAME,listen=unix:PATH")
            if any(port.name == name for port in ports):
                raise UsageError(f"--channel {text!r}: there is a {name!r} already; rename one")
            inner = Output() if self._replays() else open_channel(f"--channel {text!r}", words)
            self._closers.append(inner.close)
            ports.append(ConsolePort(TapedChannel(f"out-{name}", inner, self._sources), name))
        if len(ports) > PORTS_MAX:
            raise UsageError(f"{len(ports)} ports are too many; give {PORTS_MAX - 1} --channel")
        return ports

    def _open_share(self, number: int, share: str) -> "tuple[FuseServer | None, str, Placement]":
        from vmm.share.server import FuseServer
        from vmm.virtio.fs import check_tag

        place, tag, readonly, path = Placement(), f"share{number or ''}", False, share
        if not Path(share).exists():
            text, place = split_placement("--share", share)
            path, *items = text.split(",")
            for item in items:
                if item in ("readonly", "readonly=on", "readonly=off"):
                    readonly = item != "readonly=off"
                elif item.startswith("tag="):
                    tag = item.removeprefix("tag=")
                else:
                    raise UsageError(
                        f"--share {share!r}: {item!r} is not known; it takes tag=TAG, readonly"
                    )
        check_tag(tag)
        if self._replays():
            return None, tag, place
        server = FuseServer(Path(path), readonly=readonly, option=f"--share {share!r}")
        self._closers.append(server.close)
        return server, tag, place

    def _open_entropy(self) -> "tuple[Entropy, Placement] | None":
        if self._config.rng is None:
            return None
        from vmm.virtio.rng import FileEntropy, SeededEntropy, TapedEntropy

        source, place = split_placement("--rng", self._config.rng)
        if source == "seeded":
            return SeededEntropy(self._config.seed), place
        inner = None if self._replays() else FileEntropy(Path(source), "--rng")
        entropy = TapedEntropy(inner, self._sources)
        self._closers.append(entropy.close)
        return entropy, place

    def _read_balloon(self) -> "tuple[BalloonOptions, Placement] | None":
        if self._config.balloon is None:
            return None
        from vmm.virtio.balloon_options import BalloonOptions

        text, place = split_placement("--balloon", self._config.balloon)
        return BalloonOptions.parse(text), place

    # ---- wiring ----

    def _card(
        self,
        context: "Context",
        number: int,
        options: "NetOptions | None",
        backend: Any,
        place: Placement,
    ) -> "Net":
        from vmm.virtio.net import DEFAULT_MTU, Net

        mac, mtu = _address(number, options, backend), options.mtu if options else DEFAULT_MTU
        card = Net(f"net{number}", context, backend, mac=mac, mtu=mtu, packed=place.packed)
        self.plug_in(card, backend, context.clock)
        self.cards.append(card)
        return card

    def cables(self) -> "Iterator[tuple[int, Backend, bytes, int]]":
        """Yield number, backend, address and MTU of each network card."""
        from vmm.virtio.net import DEFAULT_MTU

        for number, (options, backend, _) in enumerate(self._nets):
            if backend is not None:
                mtu = options.mtu if options else DEFAULT_MTU
                yield number, backend, _address(number, options, backend), mtu

    def plug_in(self, card: "Card", backend: "Backend", clock: Clock) -> None:
        """Wire a card to its backend."""
        from vmm.net.backend import Port

        door = self._sources.door(card.name, card.receive)
        backend.plug_in(Port(clock, door, card.rescheduled))
        self._sources.add(backend)

    def _console(self, context: "Context") -> "ConsoleDevice":
        from vmm.virtio.console import Console as ConsoleDevice

        console = ConsoleDevice("console", context, self._ports)
        for number, port in enumerate(self._ports):
            take: Door = partial(console.receive, number)
            if port.channel is not self.terminal:  # what is typed has passed a door already
                take = self._sources.door(f"console{number}", take)
            port.channel.bind(take, partial(console.room, number))
            if not isinstance(port.channel, Output):
                self._sources.add(port.channel)
        return console


def _address(number: int, options: "NetOptions | None", backend: Any) -> bytes:
    """Return the card's address: as asked for, or one that both ends of a cable do not share."""
    if options is not None and options.mac is not None:
        return options.mac
    far = options.connect is not None if options else getattr(backend, "is_right", False)
    return (FIRST_MAC + number + (CONNECTING if far else 0)).to_bytes(6, "big")
