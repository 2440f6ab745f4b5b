"""Signals while engines are at work: real ones, to this process."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from wdct_dist.dispatch import interrupts
from wdct_dist.dispatch.interrupts import Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_the_first_signal_is_a_request_and_the_second_ends_at_once(number: signal.Signals) -> None:
    with Interrupts() as found:
        assert found.requested is None
        signal.raise_signal(number)
        assert found.requested == number.name
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


def test_after_sigterm_waiting_has_an_end_and_after_ctrl_c_it_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with Interrupts() as patient:
        signal.raise_signal(signal.SIGTERM)
        assert not patient.overdue
    monkeypatch.setattr(interrupts, "TERM_GRACE_S", 0.05)
    with Interrupts() as terminated:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.06)
        assert terminated.overdue
    with Interrupts() as interrupted:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.06)
        assert not interrupted.overdue


def test_a_handler_that_came_later_is_put_away_again_and_the_clock_that_it_may_have_set_is_stopped() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts() as found:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        found.renew()
        signal.alarm(3)
        signal.raise_signal(signal.SIGTERM)
        assert found.requested == "SIGTERM"
        assert signal.alarm(0) == 0
    assert signal.getsignal(signal.SIGTERM) == before
    found.renew()
    assert signal.getsignal(signal.SIGTERM) == before


def test_afterwards_signals_do_what_they_did_before() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ZeroDivisionError), Interrupts():
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_outside_the_main_thread_which_alone_may_handle_signals_nothing_is_changed() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def enter() -> None:
        with Interrupts() as found:
            seen.extend([signal.getsignal(signal.SIGTERM), found.requested, found.overdue])

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before, None, False]
