"""Daemons are found again, not mistaken for others, and ended with everything they started."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.embedded import processes
from infra.embedded.environment import daemon_environment
from infra.embedded.errors import StackError
from infra.embedded.processes import Daemon

# A server whose child ignores SIGTERM, and whose grandchild left the session, as torchrun's workers do.
STUBBORN = """
import os, signal, subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child])
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def stubborn(tmp_path: Path) -> Iterator[Daemon]:
    log = tmp_path / "log"
    daemon = processes.spawn([sys.executable, "-c", STUBBORN], log, daemon_environment(tmp_path, {}))
    assert processes.wait_until(lambda: "ready" in log.read_text(), 20)
    yield daemon
    for process in [*processes.family(daemon), *processes.marked(tmp_path)]:
        process.kill()


def test_a_stop_ends_children_that_ignore_it_and_those_that_left(stubborn: Daemon, tmp_path: Path) -> None:
    members = processes.family(stubborn)
    assert len(members) == 3
    processes.stop([stubborn], tmp_path, patience=5)
    assert [process for process in members if processes.alive(process)] == []


def test_a_stop_finds_what_a_killed_daemon_left_behind(stubborn: Daemon, tmp_path: Path) -> None:
    members = processes.family(stubborn)
    os.kill(stubborn.pid, signal.SIGKILL)
    assert processes.wait_until(lambda: stubborn.process() is None, 5)
    assert len([process for process in members if processes.alive(process)]) == 2
    processes.stop([stubborn], tmp_path, patience=5)
    assert [process for process in members if processes.alive(process)] == []


def test_another_stacks_processes_are_left_alone(stubborn: Daemon, tmp_path: Path) -> None:
    processes.stop([], tmp_path / "other")
    assert len(processes.family(stubborn)) == 3


def test_a_pid_that_was_given_to_another_process_is_not_taken_for_the_daemon(tmp_path: Path) -> None:
    processes.save(tmp_path / "pid.json", Daemon(os.getpid(), psutil.Process().create_time() - 3600))
    known = processes.load(tmp_path / "pid.json")
    assert known is not None
    assert known.process() is None
    assert known.replaced()
    assert processes.family(known) == []


def test_a_pid_file_round_trips_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "pid.json"
    assert processes.load(file) is None
    own = Daemon(os.getpid(), psutil.Process().create_time())
    processes.save(file, own)
    assert processes.load(file) == own
    assert own.process() is not None
    for text in ("", "[]", '{"pid": "x"}', '{"pid": 1}'):
        file.write_text(text)
        with pytest.raises(StackError, match=r"pid file .*pid\.json is damaged"):
            processes.load(file)


def test_a_daemon_has_no_terminal_and_a_session_of_its_own(stubborn: Daemon) -> None:
    leader = stubborn.process()
    assert leader is not None
    assert leader.terminal() is None
    assert os.getsid(stubborn.pid) == os.getpgid(stubborn.pid) == stubborn.pid


def test_the_last_error_of_a_log_is_the_last_line_that_looks_like_one(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert processes.last_error(log) == "it wrote no log"
    log.write_text("old ERROR\n")
    offset = processes.log_size(log)
    assert processes.last_error(log, offset) == "it wrote nothing to its log"
    with log.open("a") as file:
        file.write("fine\n")
    assert processes.last_error(log, offset) == "fine"
    with log.open("a") as file:
        file.write("OSError: no space\n\nbye\n")
    assert processes.last_error(log, offset) == "OSError: no space"


def test_a_long_log_is_set_aside_and_a_short_one_is_not(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    processes.rotate(log)
    log.write_text("12345")
    processes.rotate(log, limit=5)
    assert log.exists()
    processes.rotate(log, limit=4)
    assert not log.exists()
    assert (tmp_path / "server.old.log").read_text() == "12345"
