"""Limits per host, on a clock that only waiting moves."""

import threading
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dclib.scrape.fetch import CONNECTIONS, FAILURES, PATIENCE, PAUSE, Hosts, Postponed


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds


def make_hosts(**options):
    clock = Clock()
    return Hosts(clock=clock, sleep=clock.sleep, **options), clock


def ask(hosts, clock, n, host="a.org"):
    """Times at which n requests in a row may start."""
    times = []
    for _ in range(n):
        with hosts.turn(host):
            times.append(clock.now)
    return times


@given(
    rate=st.sampled_from([0.1, 0.5, 1.0, 3.0]),
    burst=st.integers(1, 4),
    pauses=st.lists(st.floats(0, 20), min_size=1, max_size=40),
)
def test_no_window_holds_more_than_the_bucket_allows(rate, burst, pauses):
    hosts, clock = make_hosts(rate=rate, burst=burst)
    times = []
    for pause in pauses:
        clock.now += pause
        times += ask(hosts, clock, 1)
    for i, start in enumerate(times):
        for window in (1 / rate, 5 / rate):
            asked = bisect_left(times, start + window - 1e-6) - i
            assert asked <= burst + window * rate + 1e-6


def test_nobody_waits_for_nothing():
    hosts, clock = make_hosts(rate=2.0, burst=3)
    assert ask(hosts, clock, 5) == [1000, 1000, 1000, 1000.5, 1001]
    assert ask(hosts, clock, 1, "b.org") == [1001]


def test_a_host_asks_to_wait_and_all_do():
    hosts, clock = make_hosts(rate=100)
    hosts.postpone("a.org", 7)
    assert ask(hosts, clock, 1) == [1007]
    hosts.postpone("a.org", 5)
    hosts.postpone("a.org", 1)  # the longer wish counts
    assert ask(hosts, clock, 1, "b.org") == [1007]
    assert ask(hosts, clock, 1) == [1012]


def test_longer_than_our_patience():
    hosts, clock = make_hosts()
    hosts.postpone("a.org", PATIENCE + 1)
    with pytest.raises(Postponed, match="another 61 s"):
        ask(hosts, clock, 1)
    assert clock.now == 1000
    clock.now += 2
    assert ask(hosts, clock, 1) == [1000 + PATIENCE + 1]


def test_many_failures_in_a_row_give_a_host_a_rest():
    hosts, clock = make_hosts()
    for _ in range(FAILURES - 1):
        hosts.failed("a.org")
    hosts.succeeded("a.org")
    hosts.failed("a.org")
    ask(hosts, clock, 1)
    for _ in range(FAILURES - 1):
        hosts.failed("a.org")
    with pytest.raises(Postponed):
        ask(hosts, clock, 1)
    clock.now += PAUSE
    ask(hosts, clock, 1)
    hosts.failed("a.org")  # still broken: at once another rest
    with pytest.raises(Postponed):
        ask(hosts, clock, 1)


def test_slower_if_asked_never_faster():
    hosts, clock = make_hosts(rate=1.0, burst=1)
    hosts.slow_down("a.org", 10)
    hosts.slow_down("a.org", 0.1)
    assert ask(hosts, clock, 3) == [1000, 1010, 1020]


def test_few_at_once_to_one_host():
    hosts = Hosts(rate=1000, burst=1000)
    inside, most, lock = 0, 0, threading.Lock()
    full = threading.Barrier(CONNECTIONS)

    def request():
        nonlocal inside, most
        with hosts.turn("a.org"):
            with lock:
                inside += 1
                most = max(most, inside)
            full.wait(60)  # nobody leaves before so many are inside
            with lock:
                inside -= 1

    threads = [threading.Thread(target=request) for _ in range(4 * CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == CONNECTIONS
