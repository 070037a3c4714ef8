"""Signs of life among the processes of a job: one that was killed or stopped is known within half a minute.

A limit on the time of an exchange cannot tell a rank that is stopped from one that computes for an hour. Here
a thread of every process says every two seconds that it is there, whatever the process computes. No torch.
"""

from __future__ import annotations

import hmac
import secrets
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

BEAT = 2.0
"""Seconds between two signs of life."""
SILENCE = 30.0
"""Seconds without one after which a rank counts as lost."""
GRACE = 20.0
"""Seconds that the main thread has to come to its next exchange, which fails, before the process is ended."""
HANGING = 3.0
"""The same where it is in an exchange already."""

_ALIVE, _BYE, _LOST = b".", b"!", b"L"
_RANK, _NEWS = struct.Struct("!I"), struct.Struct("!IB")
_TOKEN = 16  # bytes: whoever connects by mistake is not taken for a rank


@dataclass(frozen=True)
class Lost:
    """A rank that is no longer there.

    Attributes:
        rank: its number.
        silent: whether its connection is there and nothing comes; else the system closed it.
    """

    rank: int
    silent: bool

    def __str__(self) -> str:
        """Which, and why."""
        if self.silent:
            return f"rank {self.rank} has not answered for {SILENCE:.0f} s (stopped, or its machine is gone)"
        return f"rank {self.rank} was killed, or its memory ran out"


class _Peer:
    def __init__(self, connection: socket.socket, rank: int | None) -> None:
        self.connection, self.rank = connection, rank
        self.silent = 0.0
        self.heard = b""
        connection.setblocking(False)


class Heartbeat:
    """The watch of one rank: rank 0 hears all others, they hear rank 0, which passes on what it knows.

    Args:
        rank: of this process.
        end: called with what was lost where the main thread has not stopped the watch by itself in time.
        host: at which rank 0 can be reached; on rank 0 it decides whether other machines may.
        port: where; 0 on rank 0, which chooses.
        token: the secret of the job; empty on rank 0, which makes it up.

    Attributes:
        port: where rank 0 listens.
        token: the secret of the job.
        lost: the first rank that was lost.
        parted: ranks that ended in order.
        meeting: whether the main thread is in an exchange; set by it.

    Raises:
        OSError: rank 0 cannot be reached.
    """

    def __init__(
        self,
        rank: int,
        end: Callable[[Lost], None],
        host: str = "",
        port: int = 0,
        token: bytes = b"",
    ) -> None:
        self.rank, self.token = rank, token or secrets.token_bytes(_TOKEN)
        self.lost: Lost | None = None
        self.parted: set[int] = set()
        self.meeting = False
        self._end = end
        self._news, self._stops = threading.Event(), threading.Event()
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self._peers: list[_Peer] = []
        self._waited = 0.0
        if rank == 0:
            self._listener = _listening(host)
            self._selector.register(self._listener, selectors.EVENT_READ)
            self.port = self._listener.getsockname()[1]
        else:
            self.port = port
            connection = socket.create_connection((host, port), timeout=10)
            connection.sendall(self.token + _RANK.pack(rank))
            self._watch(_Peer(connection, 0))
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def news(self, wait: float = 3.0) -> Lost | None:
        """What was lost, for one who knows that something is wrong.

        Args:
            wait: seconds to wait for it; less where a rank has ended in order.
        """
        self._news.wait(wait)
        return self.lost

    def stop(self) -> None:
        """Tell the others that this process ends in order, and stop watching."""
        self._stops.set()
        self._thread.join(2 * BEAT)

    def _watch(self, peer: _Peer) -> None:
        self._peers.append(peer)
        self._selector.register(peer.connection, selectors.EVENT_READ, peer)

    def _run(self) -> None:
        with suppress(Exception):  # the watch must never be what fails
            before = beat = time.monotonic()
            while not self._stops.is_set():
                for key, _ in self._selector.select(BEAT / 8):
                    if key.data is None:
                        self._accept()
                    else:
                        self._hear(key.data)
                now = time.monotonic()
                # Bounded: after this process itself was stopped for an hour nobody else is at fault.
                passed = min(max(now - before, 0.0), BEAT)
                before = now
                for peer in [*self._peers]:
                    peer.silent += passed
                    if peer.silent > SILENCE:
                        self._lose(peer, silent=True)
                if not beat <= now < beat + BEAT:
                    beat = now
                    self._tell(_ALIVE)
                if self.lost is not None:
                    self._waited += passed
                    if self._waited > (HANGING if self.meeting else GRACE):
                        self._end(self.lost)
                        break
        self._tell(_BYE)
        for peer in self._peers:
            peer.connection.close()
        if self._listener is not None:
            self._listener.close()

    def _accept(self) -> None:
        assert self._listener is not None
        with suppress(OSError):
            self._watch(_Peer(self._listener.accept()[0], None))

    def _hear(self, peer: _Peer) -> None:
        try:
            data = peer.connection.recv(4096)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._lose(peer, silent=False)
            return
        peer.heard += data
        if peer.rank is None:
            if len(peer.heard) < _TOKEN + _RANK.size:
                return
            if not hmac.compare_digest(peer.heard[:_TOKEN], self.token):
                self._drop(peer)
                return
            (peer.rank,) = _RANK.unpack_from(peer.heard, _TOKEN)
            peer.heard = peer.heard[_TOKEN + _RANK.size :]
        peer.silent = 0.0
        while peer.heard:
            kind, length = peer.heard[:1], 1
            if kind == _BYE:
                self.parted.add(peer.rank)
                self._news.set()
                self._drop(peer)
                return
            if kind == _LOST:
                length += _NEWS.size
                if len(peer.heard) < length:
                    return
                number, silent = _NEWS.unpack_from(peer.heard, 1)
                self._know(Lost(number, bool(silent)))
            peer.heard = peer.heard[length:]

    def _lose(self, peer: _Peer, silent: bool) -> None:
        self._drop(peer)
        if peer.rank is not None and peer.rank not in self.parted:
            self._know(Lost(peer.rank, silent))

    def _know(self, lost: Lost) -> None:
        if self.lost is None:
            self.lost = lost
            self._news.set()
            if self.rank == 0:
                self._tell(_LOST + _NEWS.pack(lost.rank, lost.silent))

    def _drop(self, peer: _Peer) -> None:
        self._peers.remove(peer)
        with suppress(KeyError, ValueError):
            self._selector.unregister(peer.connection)
        peer.connection.close()

    def _tell(self, what: bytes) -> None:
        for peer in self._peers:
            with suppress(OSError):  # it will be missed in time
                peer.connection.send(what)


def _listening(host: str) -> socket.socket:
    local = host in ("localhost", "127.0.0.1", "::1")
    if local:
        return socket.create_server(("127.0.0.1", 0))
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server(("", 0), family=family, dualstack_ipv6=both)
