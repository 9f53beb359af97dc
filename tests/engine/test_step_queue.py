"""A process that waits for a step sleeps, and no notice passes it by."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import zmq
from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

from vllm_mdlm.compat.step_queue import sleep_until_notified

LONG_MS = 80  # shorter than the period after which a reader looks again by itself


class Ends:
    """Both ends of a queue's notices."""

    def __init__(self, address: str) -> None:
        context = zmq.Context()
        self.writer = SpinCondition(is_reader=False, context=context, notify_address=address)
        self.reader = SpinCondition(is_reader=True, context=context, notify_address=address)
        time.sleep(0.1)  # a subscription takes a moment

    def seconds_to_wait(self) -> float:
        start = time.monotonic()
        self.reader.wait(LONG_MS)
        return time.monotonic() - start

    def close(self) -> None:
        ends = (
            self.writer.local_notify_socket,
            self.reader.local_notify_socket,
            self.reader.read_cancel_socket,
            self.reader.write_cancel_socket,
        )
        for socket in ends:
            socket.close(linger=0)


@pytest.fixture
def ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ends]:
    sleep_until_notified()
    ends = Ends(f"ipc://{tmp_path_factory.mktemp('q')}/n")
    yield ends
    ends.close()


def test_a_reader_sleeps_right_behind_a_read(ends: Ends) -> None:
    ends.reader.record_read()  # type: ignore[no-untyped-call]
    assert ends.seconds_to_wait() > 0.9e-3 * LONG_MS


def test_no_notice_is_dropped_however_soon_it_follows(ends: Ends) -> None:
    waits = []
    for _ in range(50):
        ends.writer.notify()  # type: ignore[no-untyped-call]
        waits.append(ends.seconds_to_wait())
    assert max(waits) < 0.9e-3 * LONG_MS


def test_a_cancelled_reader_wakes(ends: Ends) -> None:
    ends.reader.cancel()  # type: ignore[no-untyped-call]
    assert ends.seconds_to_wait() < 0.9e-3 * LONG_MS
