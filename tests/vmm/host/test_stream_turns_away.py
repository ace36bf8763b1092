"""A listener with one peer: who comes second, and who comes when the first has just gone."""

import socket

from vmm.host.endpoint import Endpoint
from vmm.host.stream import Stream


def test_the_second_is_told_and_the_successor_is_kept() -> None:
    stream = Stream.listening(Endpoint("127.0.0.1", 0), "--test")
    where = "127.0.0.1", stream.address.port
    with socket.create_connection(where) as first:
        while not stream.accept():
            pass
        with socket.create_connection(where) as second:
            while not stream.turn_away(b"busy"):
                pass
            assert second.recv(10) == b"busy"
            assert second.recv(10) == b""
        first.sendall(b"last words")
    with socket.create_connection(where) as third:
        for _ in range(100):
            assert not stream.turn_away(b"busy")
        assert stream.receive() == b"last words"
        assert stream.receive() == b""
        assert not stream.has_peer
        assert stream.accept()
        stream.send(b"welcome")
        assert third.recv(10) == b"welcome"
    stream.close()
