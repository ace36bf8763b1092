"""`--net` as it is written: what is understood, and what is said of the rest."""

from ipaddress import IPv4Address

import pytest

from vmm.errors import UsageError
from vmm.host.endpoint import Endpoint
from vmm.net.options import Forward, Kind, NetOptions, Protocol


def test_user_with_everything() -> None:
    options = NetOptions.parse(
        "user,hostfwd=tcp::2222-:22,hostfwd=udp:127.0.0.2:53-10.0.2.9:5353,mac=52:54:00:aa:bb:cc,"
        "mtu=9000,hostname=tenant,restrict=on,host=10.0.2.1,dns=10.0.2.4,dhcpstart=10.0.2.50"
    )
    assert options.kind is Kind.USER
    assert options.forwards == (
        Forward(Protocol.TCP, IPv4Address("127.0.0.1"), 2222, IPv4Address("0.0.0.0"), 22),
        Forward(Protocol.UDP, IPv4Address("127.0.0.2"), 53, IPv4Address("10.0.2.9"), 5353),
    )
    assert options.mac == bytes.fromhex("525400aabbcc")
    assert (options.mtu, options.hostname, options.restrict) == (9000, "tenant", True)
    assert options.gateway == IPv4Address("10.0.2.1")


def test_sockets() -> None:
    assert NetOptions.parse("socket,listen=:5555").listen == Endpoint("127.0.0.1", 5555)
    assert NetOptions.parse("socket,connect=peer:1").connect == Endpoint("peer", 1)
    assert NetOptions.parse("socket,listen=unix:a/b").listen == Endpoint(path="a/b")
    assert str(Endpoint(path="a")) == "unix:a"
    assert str(Endpoint("h", 5)) == "h:5"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not one of user, socket, none; write --net user"),
        ("tap,ifname=x", "is not one of user, socket, none"),
        ("user,hostfwd=tcp:22", "hostfwd=tcp:22 is no forward; write hostfwd=tcp::2222-:22"),
        ("user,hostfwd=tcp::0-:22", "port 0 is out of range"),
        ("user,hostfwd=tcp:1.2.3:1-:22", "'1.2.3' is no IPv4 address"),
        ("user,hostfwd=tcp::65536-:22", "port 65536 is out of range"),
        ("user,listen=:5", "'listen=:5' is not known; user takes hostfwd=, net="),
        ("user,mac=52:54:00", "mac=52:54:00 is no address; write 52:54:00:12:34:56"),
        ("user,mac=01:00:00:00:00:00", "is a group's address"),
        ("user,mtu=67", "mtu=67 is out of range; give 68 to 65521"),
        ("user,mtu=many", "mtu=many is out of range"),
        ("user,net=10.0.2.0/33", "is no network; write 10.0.2.0/24"),
        ("user,net=10.0.2.0/30", "is too small; give a /24"),
        ("user,host=10.0.3.2", "10.0.3.2 is not in net=10.0.2.0/24"),
        ("user,dns=ten", "'ten' is no IPv4 address"),
        ("user,restrict=maybe", "is not on or off"),
        ("user,hostname=a b", "is no host name"),
        ("user,,", "'' is not known"),
        ("socket", "needs one end; add listen=:5555"),
        ("socket,listen=:1,connect=:2", "needs one end"),
        ("socket,listen=5555", "listen=: '5555' is no address; write 127.0.0.1:5555"),
        ("socket,listen=:port", "is no address"),
        ("socket,connect=unix:", "is no address"),
        ("none,mac=1", "none takes no options"),
    ],
)
def test_what_is_wrong_is_named_with_the_remedy(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        NetOptions.parse(text)
    assert words in str(caught.value)
    assert caught.value.status == 64
