"""Xenstore on a guest's ring: docs/misc/xenstore.txt, xenstored's quotas and errors."""

import pytest

from tests.vmm.pv.xen.store_guest import (
    REPLIES_TAKEN,
    REQUESTS_MADE,
    Message,
    StoreGuest,
    message,
)
from vmm.pv.xen.store import Store, StoreError
from vmm.pv.xen.store_ring import OWN_PATH, Op

OK, ERROR = b"OK\0", int(Op.ERROR)


def test_a_node_is_written_read_listed_and_removed() -> None:
    guest = StoreGuest()
    assert guest.say(Op.WRITE, b"data/one\0" + b"1")[3] == OK
    assert guest.say(Op.READ, b"data/one\0", request=9) == (Op.READ, 9, 0, b"1")
    assert guest.say(Op.DIRECTORY, b"data\0")[3] == b"one\0"
    assert guest.say(Op.RM, b"data\0")[3] == OK
    assert guest.say(Op.READ, f"{OWN_PATH}/data/one\0".encode())[3] == b"ENOENT\0"


@pytest.mark.parametrize(
    ("kind", "payload", "error"),
    [
        (Op.WRITE, b"/local/domain/0/backend/x\0mine", b"EACCES"), (Op.RM, b"/\0", b"EACCES"),
        (Op.READ, b"no end", b"EINVAL"), (Op.READ, b"sp ace\0", b"EINVAL"),
        (Op.READ, b"a//b\0", b"EINVAL"), (Op.READ, b"x" * 3073 + b"\0", b"EINVAL"),
        (Op.WRITE, b"big\0" + bytes(2049), b"ENOSPC"), (Op.WRITE, b"no value", b"EINVAL"),
        (Op.TRANSACTION_END, b"T\0", b"ENOENT"), (Op.TRANSACTION_END, b"what", b"EINVAL"),
        (Op.UNWATCH, b"x\0y\0", b"ENOENT"), (Op.WATCH, b"x\0", b"EINVAL"), (77, b"", b"ENOSYS"),
        (1 << 31, b"", b"ENOSYS"), (Op.INTRODUCE, b"1\0", b"EACCES"),
        (Op.GET_DOMAIN_PATH, b"\xb2\0", b"EINVAL"), (Op.SET_PERMS, b"name\0q1\0", b"EINVAL"),
    ],
)  # fmt: skip
def test_what_is_refused(kind: int, payload: bytes, error: bytes) -> None:
    guest = StoreGuest()
    assert guest.say(kind, payload) == (ERROR, 7, 0, error + b"\0")
    assert guest.store.read("/local/domain/0/backend/x") == b"theirs"


def test_a_watch_is_heard_behind_its_reply_and_at_each_change() -> None:
    guest = StoreGuest()
    assert guest.say(Op.WATCH, b"data\0mine\0")[3] == OK
    assert guest.events == [b"data\0mine\0"]
    guest.say(Op.WRITE, b"data/x\0" + b"1")
    assert guest.events == [b"data\0mine\0", b"data/x\0mine\0"]
    assert guest.say(Op.WATCH, f"{OWN_PATH}/data\0mine\0".encode())[3] == b"EEXIST\0"
    assert guest.say(Op.UNWATCH, b"data\0mine\0")[3] == OK
    guest.say(Op.WRITE, b"data/x\0" + b"2")
    assert guest.events == []


def test_nobody_elses_watch_is_taken_away() -> None:
    guest, heard = StoreGuest(), list[str]()
    path = f"{OWN_PATH}/device"
    guest.store.watch(path, "back", lambda changed, _token: heard.append(changed))
    assert guest.say(Op.UNWATCH, b"device\0back\0")[3] == b"ENOENT\0"
    assert guest.say(Op.WATCH, b"device\0back\0")[3] == OK
    assert guest.say(Op.RESET_WATCHES, b"\0")[3] == OK
    guest.say(Op.WRITE, b"device/state\0" + b"4")
    assert heard == [path, path, f"{path}/state"]


def test_transactions_are_apart_until_they_end() -> None:
    guest = StoreGuest()
    number = int(guest.say(Op.TRANSACTION_START, b"\0")[3].rstrip(b"\0"))
    assert guest.say(Op.WRITE, b"a\0" + b"1", number)[3] == OK
    assert guest.say(Op.READ, b"a\0")[3] == b"ENOENT\0"
    assert guest.say(Op.TRANSACTION_END, b"T\0", number)[3] == OK
    assert guest.say(Op.READ, b"a\0")[3] == b"1"
    number = int(guest.say(Op.TRANSACTION_START, b"\0")[3].rstrip(b"\0"))
    assert guest.say(Op.READ, b"a\0", number)[3] == b"1"
    guest.say(Op.WRITE, b"a\0" + b"2")
    assert guest.say(Op.TRANSACTION_END, b"T\0", number)[3] == b"EAGAIN\0"


def test_quotas() -> None:
    """Watches, transactions, nodes of the guest's, nodes of one transaction."""
    guest = StoreGuest()
    answers = [guest.say(Op.WATCH, f"w{n}\0t\0".encode())[3] for n in range(130)]
    assert answers == [OK] * 128 + [b"E2BIG\0"] * 2
    assert guest.say(Op.RESET_WATCHES, b"\0")[3] == OK
    started = [guest.say(Op.TRANSACTION_START, b"\0")[3] for _ in range(12)]
    assert started[9:] == [b"10\0", b"ENOSPC\0", b"ENOSPC\0"]
    touched = [guest.say(Op.READ, f"n{n}\0".encode(), 1)[3] for n in range(1026)]
    assert touched == [b"ENOENT\0"] * 1024 + [b"ENOSPC\0"] * 2
    own = sum(1 for path in guest.store.tree if path.startswith(OWN_PATH + "/"))
    made = [guest.say(Op.MKDIR, f"m{n}\0".encode())[3] for n in range(1001)]
    assert made.count(OK) == 1000 - own
    assert set(made[1000 - own :]) == {b"ENOSPC\0"}
    assert guest.say(Op.WRITE, b"m1\0still")[3] == OK


def test_transactions_together_do_not_pass_the_quota() -> None:
    store = Store(OWN_PATH)
    store.write(OWN_PATH, b"")
    numbers = [store.begin(), store.begin()]
    for number in numbers:
        for n in range(600):
            store.write(f"{OWN_PATH}/{number}-{n}", b"", number)
    store.end(numbers[0], commit=True)
    with pytest.raises(StoreError, match="ENOSPC"):
        store.end(numbers[1], commit=True)
    assert len([p for p in store.tree if p.startswith(OWN_PATH + "/")]) == 600


def test_changes_are_not_remembered_for_ever() -> None:
    """A transaction that is never ended sees so many that it cannot commit any more."""
    store = Store(OWN_PATH)
    number = store.begin()
    store.write(f"{OWN_PATH}/mine", b"", number)
    for n in range(10_000):
        store.write(f"{OWN_PATH}/{n}", b"")
        store.remove(f"{OWN_PATH}/{n}")
        assert len(store.changes) <= 4097
    with pytest.raises(StoreError, match="EAGAIN"):
        store.end(number, commit=True)
    store.write(f"{OWN_PATH}/x", b"")
    assert store.changes == {}


def test_who_takes_no_replies_is_not_heard_until_it_does() -> None:
    guest = StoreGuest()
    wanted = 3000
    sent = b"".join(message(Op.READ, b"name\0", request=n) for n in range(wanted))
    while sent and (count := guest.put(sent)):
        sent = sent[count:]
        guest.ring.kick()
    assert sent
    assert len(guest.ring.output) < 1 << 15
    found: list[Message] = []
    while len(found) < wanted:
        guest.take()
        found += guest.messages()
        sent = sent[guest.put(sent) :]
        guest.ring.kick()
    assert found == [(Op.READ, n, 0, b"guest") for n in range(wanted)]


def test_events_that_nobody_takes_are_lost_and_replies_are_not() -> None:
    guest = StoreGuest()
    token = b"t" * 600
    for n in range(40):
        guest.say(Op.WATCH, b"name\0%d" % n + token + b"\0")
    for n in range(10):
        guest.unsent += message(Op.WRITE, b"name\0" + b"x" * 2000, request=n)
    replies = []
    for _ in range(400):
        guest.unsent = guest.unsent[guest.put(guest.unsent) :]
        guest.ring.kick()
        assert len(guest.ring.output) < (1 << 20) + 5000
        guest.take()
        replies += [m[1] for m in guest.messages() if m[0] == Op.WRITE]
    assert replies == list(range(10))
    guest.store.write(f"{OWN_PATH}/name", b"by another")
    for n in range(60):
        guest.store.write(f"{OWN_PATH}/name", b"%d" % n)
    assert guest.ring.lost > 0


@pytest.mark.parametrize("at", [REQUESTS_MADE, REPLIES_TAKEN])
def test_an_index_from_nowhere_harms_nobody(at: int) -> None:
    guest = StoreGuest()
    guest.set_index(at, 0x8000_0000)
    guest.ring.kick()
    if at == REPLIES_TAKEN:
        guest.put(message(Op.READ, b"name\0"))
        guest.ring.kick()
    guest.connect()
    assert guest.say(Op.READ, b"name\0")[3] == b"guest"


def test_a_length_beyond_all_bounds_ends_the_connection() -> None:
    guest = StoreGuest()
    guest.put(message(Op.READ, b"x\0")[:12] + b"\xff\xff\xff\x7f")
    guest.ring.kick()
    assert guest.ring.broken
    guest.put(message(Op.READ, b"name\0"))
    guest.ring.kick()
    guest.take()
    assert guest.messages() == []
