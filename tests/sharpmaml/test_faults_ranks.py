"""A rank that is killed or stopped: the others end with a clear line, and the run goes on to the same bits."""

import dataclasses
import json
import shutil
import signal
import socket
import threading
import time

import pytest
from fault_tools import needs_shim, server
from run_files import unreadable
from training_faults import RUNS, Lab

from landscape import heartbeat, parallel
from landscape.heartbeat import Heartbeat, Lost

CONFIG = dataclasses.replace(
    RUNS["Sharp-MAML both, sinusoids, Adam"], meta_batch=3, patience=0, iterations=9
)


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    """Start three ranks in a folder of runs; their statuses, lines and seconds."""
    place = tmp_path_factory.mktemp("ranks")
    (place / "settings.toml").write_text(CONFIG.to_toml())
    with server(
        "sharpmaml.cli", "training_faults:warm_one", "rank_faults", "torch.distributed"
    ) as forks:

        def start(name, resume=False, **strike):
            words = [
                "train",
                "--config",
                str(place / "settings.toml"),
                "--out",
                str(place / name),
                "--quiet",
            ]
            (place / "struck").unlink(missing_ok=True)
            forks.run("rank_faults:command", words + ["--resume"] * resume, str(place), **strike)
            return place / name, json.loads((place / "ranks.json").read_text())

        whole, ended = start("whole")
        assert [status for status, *_ in ended] == [0, 0, 0], ended
        start.unlike = lambda out: Lab.unlike(Whole(whole), out)
        yield start


class Whole:
    def __init__(self, whole):
        self.whole = whole


@needs_shim
@pytest.mark.parametrize(
    ("number", "why"), [(signal.SIGKILL, "was killed"), (signal.SIGSTOP, "has not answered")]
)
@pytest.mark.parametrize("victim", [0, 2])
def test_the_others_end_with_a_line_and_the_run_goes_on(launch, number, why, victim):
    out, ended = launch(f"{victim}-{number}", victim=victim, sends=int(number), step=6)
    assert [status for status, *_ in ended] == [
        -number if rank == victim else 1 for rank in range(3)
    ]
    speakers = [0] if victim else [1, 2]  # rank 0 speaks for all, unless it is the one that is lost
    for rank, (_, stderr, seconds) in enumerate(ended):
        if rank in speakers:
            assert len(stderr.splitlines()) == 1
            assert stderr.startswith(
                f"error: rank {rank} lost another rank: rank {victim} {why}"
            ), stderr
        else:
            assert stderr == ""
        assert rank == victim or seconds < 30
    assert unreadable(out) == []
    if number == signal.SIGKILL:
        _, ended = launch(out.name, resume=True)
        assert [status for status, *_ in ended] == [0, 0, 0], ended
        assert launch.unlike(out) == []
    shutil.rmtree(out)


# The watch itself, in threads


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(heartbeat, "SILENCE", 1.0)
    monkeypatch.setattr(heartbeat, "BEAT", 0.05)
    monkeypatch.setattr(heartbeat, "GRACE", 0.9)
    monkeypatch.setattr(heartbeat, "HANGING", 0.2)


def team(size, **first):
    ends = [[] for _ in range(size)]
    watches = [Heartbeat(0, ends[0].append, "localhost")]
    watches += [
        Heartbeat(rank, ends[rank].append, "localhost", watches[0].port, watches[0].token)
        for rank in range(1, size)
    ]
    time.sleep(0.3)
    return watches, ends


def test_a_job_that_ends_in_order_ends_nobody(quick):
    watches, ends = team(3)
    time.sleep(1.5)  # longer than silence may be
    watches[1].stop()
    assert watches[0].news(1.0) is None and watches[0].parted == {1}
    watches[0].stop()
    assert watches[2].news(1.0) is None and watches[2].parted == {0}
    watches[2].stop()
    assert ends == [[], [], []]


def test_a_rank_whose_connection_is_gone_is_lost_to_all(quick):
    watches, ends = team(3)
    watches[1]._peers[0].connection.shutdown(socket.SHUT_RDWR)  # as the system does for the dead
    assert watches[0].news(1.0) == watches[2].news(1.0) == Lost(1, silent=False)
    watches[2].meeting = True
    time.sleep(0.5)
    assert (
        ends[2] == [Lost(1, silent=False)] and ends[0] == []
    )  # it may still be on its way to an exchange
    time.sleep(0.8)
    assert ends[0] == [Lost(1, silent=False)]
    for watch in watches:
        watch.stop()


def test_silence_is_noticed_and_what_is_computed_meanwhile_is_not_silence(quick):
    watches, _ = team(2)
    stranger = socket.create_connection(("localhost", watches[0].port))
    stranger.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")  # not of the job
    mute = socket.create_connection(("localhost", watches[0].port))
    mute.sendall(watches[0].token + (5).to_bytes(4, "big"))
    assert watches[0].news(3.0) == watches[1].news(1.0) == Lost(5, silent=True)
    assert "rank 5 has not answered for 1 s" in str(watches[0].lost)
    stranger.close()
    mute.close()
    for watch in watches:
        watch.stop()


def test_the_line_says_who_is_lost_and_one_rank_speaks():
    for own, lost, speaks in ((0, 2, True), (1, 2, False), (1, 0, True)):
        error = parallel.LostError(own, Lost(lost, silent=False))
        assert error.speaks is speaks and error.rank == lost
        assert str(error).startswith(f"rank {own} lost another rank: rank {lost} was killed")
    assert parallel.LostError(3, None, "Connection closed").speaks


def test_threads_of_the_watch_end_with_it(quick):
    watches, _ = team(2)
    for watch in watches:
        watch.stop()
    assert not [t for t in threading.enumerate() if t.name == "heartbeat"]
