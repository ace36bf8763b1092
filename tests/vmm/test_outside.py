"""Options that make virtio devices with an end on the host, in whole VMs."""

import socket
from pathlib import Path
from typing import Any

import pytest

from tests.images import elf64
from vmm import VM
from vmm.config import MIB
from vmm.disks import TransportKind
from vmm.errors import UsageError
from vmm.net.wire import Wire
from vmm.placement import Placement, split_placement
from vmm.virtio.balloon_options import BalloonOptions

IDLE = "cli; hlt"


def vm(**options: Any) -> VM:
    return VM(elf64(IDLE), memory="8M", **options)


def test_everything_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wire = Wire()
    options: dict[str, Any] = {
        "net": [wire.left, "socket,listen=unix:cable,transport=mmio"],
        "console": "virtio",
        "channels": ["org.ring1,listen=unix:port", "log,file=log"],
        "rng": "seeded,packed",
        "seed": 7,
        "balloon": "4M,stats=1",
        "shares": [f"{tmp_path},readonly", f"{tmp_path},tag=again"],
    }
    with vm(**options) as machine:
        outside = machine.peripherals.outside
        assert [card.name for card in outside.cards] == ["net0", "net1"]
        assert machine.balloon.target == 4 * MIB
        assert len(machine.sources.descriptors()) == 2
        names = set(machine.board.save())
        assert {"net0", "net1", "console", "fs0", "fs1", "rng", "balloon"} <= names
        first = machine.run()
        snapshot = machine.snapshot()
        machine.restore(snapshot)
        assert machine.digest() == first.digest()
    assert not Path("cable").exists()
    assert not Path("port").exists()
    assert wire.left.port is None or wire.left.next_event() is None


def test_two_ends_of_a_cable_have_two_addresses() -> None:
    wire = Wire()
    with vm(net=wire.left) as one, vm(net=wire.right) as other:
        cards = one.peripherals.outside.cards + other.peripherals.outside.cards
    addresses = [bytes(card.config[:6]).hex() for card in cards]
    assert addresses == ["525400123456", "5254001234d6"]


def test_what_was_opened_is_closed_when_the_rest_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--share"):
        vm(net="socket,listen=unix:cable", shares="none")
    assert not Path("cable").exists()


def test_a_busy_port_and_a_used_socket_are_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--net .*127.0.0.1:{port} cannot be listened at"):
            vm(net=f"socket,listen=:{port}")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"net": "tap"}, "--net 'tap' is not one of user, socket, none"),
        ({"net": "none,transport=isa"}, "'transport=isa' is not known; write transport=mmio"),
        ({"console": "vga"}, "--console 'vga' is not one of serial, virtio"),
        ({"channels": "org.ring1"}, "'' is no channel; write listen=unix:PATH"),
        ({"channels": ",null"}, "has no name; write NAME,listen=unix:PATH"),
        ({"channels": ["a,null", "a,null"]}, "there is a 'a' already; rename one"),
        ({"channels": [f"c{n},null" for n in range(40)]}, "41 ports are too many"),
        ({"rng": "none.bin"}, "--rng 'none.bin' cannot be read"),
        ({"seed": "x"}, "--seed 'x' is not a number"),
        ({"balloon": "big"}, "--balloon 'big': 'big' is no size; write on, or 64M"),
        ({"balloon": "on,stats=never"}, "stats=never is no time"),
        ({"balloon": "on,swap=on"}, "'swap=on' is not known; it takes stats=SECONDS"),
        ({"shares": "nowhere"}, "--share 'nowhere': 'nowhere' cannot be shared"),
        ({"shares": ".,rw"}, "'rw' is not known; it takes tag=TAG, readonly"),
        ({"shares": ".,tag="}, "tag='' is no tag"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        vm(**options)
    assert said in str(caught.value)


def test_a_vm_without_a_balloon_says_so() -> None:
    with vm() as machine, pytest.raises(UsageError, match="has no balloon; make it with balloon="):
        _ = machine.balloon


def test_options_of_a_balloon() -> None:
    assert BalloonOptions.parse("on") == BalloonOptions()
    assert BalloonOptions.parse("64M,stats=0.5,reporting=off,deflate-on-oom=off") == BalloonOptions(
        64 * MIB, 500_000_000, reporting=False, deflate_on_oom=False
    )


def test_placement() -> None:
    assert split_placement("--x", "a,transport=mmio,b=1,packed") == (
        "a,b=1",
        Placement(TransportKind.MMIO, packed=True),
    )
    assert split_placement("--x", "a,packed=off") == ("a", Placement())


def test_a_reset_does_not_draw_the_same_bytes_again() -> None:
    with vm(rng="seeded") as machine:
        entropy = machine.peripherals.outside._entropy
        assert entropy is not None
        first = entropy[0].draw(8)
        machine._restart()
        assert entropy[0].draw(8) != first
        machine.restore(machine._power_on)
        assert entropy[0].draw(8) == first
