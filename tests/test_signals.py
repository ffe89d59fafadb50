"""Signals: the first is a wish that is met, the same wish told twice is one, a later one ends the process at once."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tfdqn.runtime.signals import StopRequest

ROOT = Path(__file__).parent.parent

RUN = """
import sys
from tfdqn.runtime import signals
signals.SAME_WISH_SECONDS = float(sys.argv[1])
with signals.StopRequest() as stop:
    stop.hint = "so it goes on"
    with stop.waiting():
        print("ready", flush=True)
        while sys.stdin.readline() == "?\\n":
            print(stop.signal, flush=True)
    print("saved", flush=True)
    sys.stdin.read()
"""


class Waiting:
    """A process that waits for signals, and says which one it has noted."""

    def __init__(self, same_wish_seconds=1e9, **options):
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(same_wish_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            **options,
        )
        assert self.process.stdout.readline() == "ready\n"

    def noted(self):
        self.process.stdin.write("?\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def note(self, number):
        self.process.send_signal(number)
        while (noted := self.noted()) == "None":
            pass
        return int(noted)

    def end(self):
        """What it said and its exit code, after it was let go."""
        out, errors = self.process.communicate(timeout=60)
        return out, errors, self.process.returncode


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_first_signal_is_only_noted(number):
    process = Waiting()
    assert process.note(number) == number
    assert process.end() == ("saved\n", "", 0)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_wish_told_twice_is_one_even_where_the_run_has_gone_on_meanwhile(second):
    process = Waiting()
    process.note(signal.SIGTERM)
    process.process.send_signal(second)
    for _ in range(100):
        assert process.noted() == str(int(signal.SIGTERM))
    process.process.stdin.write("go on\n")
    process.process.stdin.flush()
    assert process.process.stdout.readline() == "saved\n"
    process.process.send_signal(second)
    assert process.end() == ("", "", 0)


def test_a_later_signal_ends_the_process_at_once_and_says_how_to_go_on():
    process = Waiting(same_wish_seconds=0)
    process.note(signal.SIGTERM)
    process.process.send_signal(signal.SIGINT)
    assert process.process.wait(60) == 128 + signal.SIGINT
    assert process.process.stderr.read() == "stopped by SIGINT; so it goes on\n"


def test_a_hangup_that_is_ignored_stays_ignored():
    """As `nohup` has it."""
    process = Waiting(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.process.send_signal(signal.SIGHUP)
    for _ in range(100):
        assert process.noted() == "None"
    assert process.end() == ("saved\n", "", 0)


def test_handlers_are_put_back_and_a_thread_sets_none():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with StopRequest() as stop:
        assert signal.getsignal(signal.SIGTERM) != before[1]
    noted = []

    def in_thread():
        with StopRequest() as stop, stop.waiting():
            noted.append((stop.signal, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert noted == [(None, before[1])] and stop.signal is None
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


# --- A guest of a process that is someone else's, such as a notebook's. ---


def test_a_guest_notes_the_first_ctrl_c_and_a_later_one_is_a_keyboard_interrupt(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with StopRequest(is_guest=True) as stop, stop.waiting():
            with stop.waiting():
                signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)  # the same wish
            assert stop.signal == signal.SIGINT
            monkeypatch.setattr("tfdqn.runtime.signals.SAME_WISH_SECONDS", 0.0)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with StopRequest(is_guest=True) as stop, pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)  # nobody waits
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_guest_passes_other_signals_on_once_it_has_ended():
    got = []
    before = signal.signal(signal.SIGTERM, lambda *_: got.append("own"))
    try:
        with StopRequest(is_guest=True) as stop, stop.waiting():
            signal.raise_signal(signal.SIGTERM)
            assert (stop.signal, got) == (signal.SIGTERM, [])
        assert got == ["own"]
    finally:
        signal.signal(signal.SIGTERM, before)
    code = (
        "import os, signal; from tfdqn.runtime.signals import StopRequest\n"
        "with StopRequest(is_guest=True) as stop, stop.waiting():\n"
        "    os.kill(os.getpid(), signal.SIGTERM); print(stop.signal, flush=True)\n"
        "print('goes on')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert (done.stdout, done.returncode) == (f"{int(signal.SIGTERM)}\n", -signal.SIGTERM)
