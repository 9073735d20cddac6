"""The library's log arrives in `logging`."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from miniflow import Executor


class Heard(logging.Handler):
    """Keeps what it is given, and tells when a word was in it."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.heard = threading.Event()
        self._word = word

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        if self._word in record.getMessage():
            self.heard.set()


def test_the_death_of_a_worker_is_logged_below_miniflow():
    logger = logging.getLogger("miniflow")
    handler = Heard("SIGKILL")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        with Executor(1) as executor:
            worker = executor.submit(os.getpid).result(60)
            os.kill(worker, signal.SIGKILL)
            assert executor.submit(os.getpid).result(60) != worker
            assert handler.heard.wait(30), [record.getMessage() for record in handler.records]
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    assert all(record.name.split(".")[0] == "miniflow" for record in handler.records)


@pytest.mark.parametrize("level", ["WARNING", "DEBUG"])
def test_nothing_is_printed_unless_the_program_asks_for_it_and_the_reader_ends_with_it(level: str):
    program = f"""
        import logging, os, signal
        from miniflow import Executor
        logging.getLogger("miniflow").setLevel(logging.{level})
        with Executor(1) as executor:
            os.kill(executor.submit(os.getpid).result(60), signal.SIGKILL)
            executor.submit(os.getpid).result(60)
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert (ran.stdout, ran.stderr) == ("", "")
