"""What `--xenstore` plans: read as people write it, done at its times, once."""

import pytest

from hwmodel.timing.clock import Clock
from vmm.config import Config
from vmm.errors import UsageError
from vmm.pv.xen.store import Store
from vmm.pv.xen.toolstack import Toolstack
from vmm.pv_options import StoreWrite

OWN = "/local/domain/1"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("control/shutdown=poweroff@2s", StoreWrite("control/shutdown", "poweroff", 2 * 10**9)),
        ("data/x=a=b@c", StoreWrite("data/x", "a=b@c")),
        ("/local/domain/0/name=n@15us", StoreWrite("/local/domain/0/name", "n", 15_000)),
        ("data/empty=", StoreWrite("data/empty", "")),
    ],
)
def test_a_write_is_read(text: str, wanted: StoreWrite) -> None:
    assert StoreWrite.of(text) == wanted


@pytest.mark.parametrize("text", ["data/x", "=y", "a//b=1", "a/=1", "sp ace=1", "x\n=1"])
def test_what_is_none_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="--xenstore") as caught:
        StoreWrite.of(text)
    assert "\n" not in str(caught.value)
    assert repr(text) in str(caught.value)


def test_it_is_for_guests_of_xen() -> None:
    with pytest.raises(UsageError, match="--xenstore is Xen's"):
        Config.of(xenstore="data/x=1")
    assert Config.of(xenstore="data/x=1", dialects="xen").has_toolstack()


def test_writes_come_at_their_times_and_once() -> None:
    clock, store = Clock(1_000_000_000), Store()
    plan = [StoreWrite.of(t) for t in ("b=2@7ns", "a=1", "/c=3@5ns")]
    toolstack = Toolstack(store, clock, plan)
    assert store.read(f"{OWN}/a") == b"1"
    assert toolstack.next_event() == 5
    clock.now = 6
    toolstack.fire()
    assert (store.read("/c"), store.exists(f"{OWN}/b")) == (b"3", False)
    before = toolstack.save()
    clock.now = 7
    toolstack.fire()
    assert store.read(f"{OWN}/b") == b"2"
    assert toolstack.next_event() is None
    toolstack.restore(before)
    assert toolstack.next_event() == 7
