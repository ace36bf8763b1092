"""`--net KIND,key=value,...` taken apart and checked; the words are those of QEMU's `-netdev`."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final, Self

from vmm.errors import UsageError
from vmm.host.endpoint import Endpoint, parse_endpoint
from vmm.net.backend import MTU_MAX, MTU_MIN

DEFAULT_NETWORK: Final = IPv4Network("10.0.2.0/24")  # QEMU's


class Kind(StrEnum):
    """What is at the other end."""

    USER = "user"
    SOCKET = "socket"
    NONE = "none"


class Protocol(StrEnum):
    """What a port forward carries."""

    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True)
class Forward:
    """A host port that leads to a guest's: hostfwd=tcp:[HOSTADDR]:PORT-[GUESTADDR]:PORT."""

    protocol: Protocol
    host: IPv4Address
    host_port: int
    guest: IPv4Address
    guest_port: int

    def __str__(self) -> str:
        return f"{self.protocol}:{self.host}:{self.host_port}-{self.guest}:{self.guest_port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetOptions:
    """One network card and what it is connected to. Addresses None: derived from `network`."""

    kind: Kind
    text: str
    mac: bytes | None = None
    mtu: int = 1500
    network: IPv4Network = DEFAULT_NETWORK
    gateway: IPv4Address | None = None
    dns: IPv4Address | None = None
    dhcp_start: IPv4Address | None = None
    hostname: str = ""
    restrict: bool = False
    forwards: tuple[Forward, ...] = ()
    listen: Endpoint | None = None
    connect: Endpoint | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what follows --net. Raises UsageError with the value and what to write."""
        word, *items = text.split(",")
        if word not in list(Kind):
            raise UsageError(f"--net {text!r} is not one of {', '.join(Kind)}; write --net user")
        kind = Kind(word)
        found: dict[str, Any] = {}
        for item in items:
            key, equals, value = item.partition("=")
            if not equals or key not in _KEYS[kind]:
                known = ", ".join(f"{name}=" for name in _KEYS[kind]) or "no options"
                raise UsageError(f"--net {text!r}: {item!r} is not known; {kind} takes {known}")
            field, value = _KEYS[kind][key](text, value)
            found[field] = (*found.get(field, ()), value) if field == "forwards" else value
        options = cls(kind=kind, text=text, **found)
        if kind is Kind.SOCKET and (options.listen is None) == (options.connect is None):
            raise UsageError(
                f"--net {text!r} needs one end; add listen=:5555, connect=HOST:5555 or "
                "listen=unix:PATH, connect=unix:PATH"
            )
        _check_addresses(options)
        return options


def _check_addresses(options: NetOptions) -> None:
    if options.network.num_addresses < 32:
        raise UsageError(f"--net {options.text!r}: net={options.network} is too small; give a /24")
    for name in ("gateway", "dns", "dhcp_start"):
        address = getattr(options, name)
        if address is not None and address not in options.network:
            raise UsageError(
                f"--net {options.text!r}: {address} is not in net={options.network}; choose one"
            )


Field = tuple[str, Any]
_MAC: Final = re.compile(r"[0-9a-fA-F]{2}(?:[:-][0-9a-fA-F]{2}){5}")
_FORWARD: Final = re.compile(r"(tcp|udp):([0-9.]*):([0-9]{1,5})-([0-9.]*):([0-9]{1,5})")


def _mac(text: str, value: str) -> Field:
    if not _MAC.fullmatch(value):
        raise UsageError(f"--net {text!r}: mac={value} is no address; write 52:54:00:12:34:56")
    mac = bytes.fromhex(value.replace(":", "").replace("-", ""))
    if mac[0] & 1 or not any(mac):
        raise UsageError(
            f"--net {text!r}: mac={value} is a group's address; write 52:54:00:12:34:56"
        )
    return "mac", mac


def _mtu(text: str, value: str) -> Field:
    if not (value.isascii() and value.isdigit() and MTU_MIN <= int(value) <= MTU_MAX):
        raise UsageError(
            f"--net {text!r}: mtu={value} is out of range; give {MTU_MIN} to {MTU_MAX}"
        )
    return "mtu", int(value)


def _ipv4(text: str, value: str) -> IPv4Address:
    try:
        return IPv4Address(value)
    except ValueError:
        raise UsageError(f"--net {text!r}: {value!r} is no IPv4 address; write 10.0.2.2") from None


def _address(field: str) -> Callable[[str, str], Field]:
    return lambda text, value: (field, _ipv4(text, value))


def _network(text: str, value: str) -> Field:
    try:
        return "network", IPv4Network(value, strict=False)
    except ValueError:
        raise UsageError(f"--net {text!r}: net={value} is no network; write 10.0.2.0/24") from None


def _hostname(text: str, value: str) -> Field:
    if not re.fullmatch(r"[A-Za-z0-9-]{1,63}", value):
        raise UsageError(f"--net {text!r}: hostname={value} is no host name; use letters")
    return "hostname", value


def _switch(text: str, value: str) -> Field:
    if value not in ("on", "off", "yes", "no", "y", "n"):
        raise UsageError(f"--net {text!r}: restrict={value} is not on or off; write restrict=on")
    return "restrict", value in ("on", "yes", "y")


def _port(text: str, value: str) -> int:
    if not 0 < int(value) < 65536:
        raise UsageError(f"--net {text!r}: port {value} is out of range; give 1 to 65535")
    return int(value)


def _forward(text: str, value: str) -> Field:
    found = _FORWARD.fullmatch(value)
    if found is None:
        raise UsageError(
            f"--net {text!r}: hostfwd={value} is no forward; write hostfwd=tcp::2222-:22"
        )
    protocol, host, host_port, guest, guest_port = found.groups()
    return "forwards", Forward(
        Protocol(protocol),
        _ipv4(text, host or "127.0.0.1"),
        _port(text, host_port),
        _ipv4(text, guest or "0.0.0.0"),  # libslirp: whoever got a lease
        _port(text, guest_port),
    )


def _endpoint(field: str) -> Callable[[str, str], Field]:
    return lambda text, value: (field, parse_endpoint(f"--net {text!r}, {field}=", value))


_COMMON: Final = {"mac": _mac, "mtu": _mtu}
_KEYS: Final[Mapping[Kind, Mapping[str, Callable[[str, str], Field]]]] = {
    Kind.USER: {
        "hostfwd": _forward,
        "net": _network,
        "host": _address("gateway"),
        "dns": _address("dns"),
        "dhcpstart": _address("dhcp_start"),
        "hostname": _hostname,
        "restrict": _switch,
        **_COMMON,
    },
    Kind.SOCKET: {"listen": _endpoint("listen"), "connect": _endpoint("connect"), **_COMMON},
    Kind.NONE: {},
}
