"""What tasks print is kept task by task."""

from __future__ import annotations

import asyncio
import contextvars
import io
import logging
import sys
import threading
from collections.abc import Callable

import pytest
from script_tools import Threads

from miniflow._worker import output
from miniflow._worker.output import LIMIT, Captured


class Real:
    """The streams that are there without the capture."""

    def __init__(self) -> None:
        self.stdout, self.stderr = (
            io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)
        )

    def text(self) -> tuple[str, str]:
        stdout, stderr = (stream.buffer.getvalue().decode() for stream in (self.stdout, self.stderr))
        return stdout, stderr


def in_a_worker(test: Callable[[Real], None]) -> Callable[[], None]:
    """Runs a test with the stand-ins in place. No fixture could: pytest sets sys.stdout anew after those."""

    def run() -> None:
        before = (sys.stdout, sys.stderr)
        real = Real()
        sys.stdout, sys.stderr = real.stdout, real.stderr
        try:
            output.install()
            test(real)
            output.uninstall()
            after = (sys.stdout, sys.stderr)
        finally:
            sys.stdout, sys.stderr = before
        assert after == (real.stdout, real.stderr)

    run.__name__ = test.__name__
    return run


@in_a_worker
def test_what_a_task_prints_is_its_own_and_the_rest_passes(real: Real) -> None:
    print("before")
    captured = Captured()
    captured.start()
    print("out", 1)
    print("err", 2, file=sys.stderr)
    assert captured.finish() == ("out 1\n", "err 2\n")
    print("after", file=sys.stderr)
    assert real.text() == ("before\n", "after\n")


@in_a_worker
def test_tasks_that_run_beside_each_other_do_not_mix(real: Real) -> None:
    def task(number: int) -> tuple[str, str]:
        captured = Captured()
        captured.start()
        for line in range(200):
            print("task", number, "line", line)
        sys.stderr.write(f"{number}")
        return captured.finish()

    results = Threads([lambda n=n: task(n) for n in range(10)]).join()  # type: ignore[misc]
    for number, (stdout, stderr) in enumerate(results):
        assert stdout == "".join(f"task {number} line {line}\n" for line in range(200))
        assert stderr == str(number)
    assert real.text() == ("", "")


@in_a_worker
def test_one_thread_keeps_the_output_of_one_task_after_another_apart(real: Real) -> None:
    outputs = []
    for number in range(3):
        captured = Captured()
        captured.start()
        print(number)
        outputs.append(captured.finish()[0])
    assert outputs == ["0\n", "1\n", "2\n"]


@in_a_worker
def test_output_beyond_the_limit_is_cut_and_says_so(real: Real) -> None:
    captured = Captured()
    captured.start()
    for _ in range(3):
        sys.stdout.write("x" * (LIMIT // 2))
    sys.stdout.write("\u20ac")
    stdout, stderr = captured.finish()
    assert stdout == "x" * LIMIT + f"\n... truncated, {LIMIT // 2 + 3} bytes more"
    assert stderr == ""


@in_a_worker
def test_a_cut_through_a_character_leaves_it_out(real: Real) -> None:
    captured = Captured()
    captured.start()
    sys.stdout.write("x" * (LIMIT - 1) + "\u20ac" + "y")
    stdout, _ = captured.finish()
    assert stdout == "x" * (LIMIT - 1) + "\n... truncated, 3 bytes more"


@in_a_worker
def test_bytes_text_and_characters_in_pieces_are_captured(real: Real) -> None:
    captured = Captured()
    captured.start()
    for byte in "\u20ac".encode():
        sys.stdout.buffer.write(bytes([byte]))
    sys.stdout.writelines(["a", "b"])
    sys.stdout.buffer.write(b"\xff")
    sys.stdout.write("\ud800")
    sys.stdout.flush()
    assert captured.finish()[0] == "\u20acab\ufffd\\ud800"


@in_a_worker
def test_what_a_task_logs_is_captured(real: Real) -> None:
    captured = Captured()
    captured.start()
    handler = logging.StreamHandler()
    handler.handle(logging.LogRecord("script", logging.WARNING, __file__, 1, "logged", None, None))
    assert captured.finish() == ("", "logged\n")


@in_a_worker
def test_coroutines_and_their_threads_belong_to_the_task(real: Real) -> None:
    async def main() -> None:
        print("coroutine")
        await asyncio.gather(
            asyncio.get_running_loop().create_task(printing()),
            asyncio.to_thread(print, "to_thread"),
        )

    async def printing() -> None:
        print("child")

    captured = Captured()
    captured.start()
    asyncio.run(main())
    assert sorted(captured.finish()[0].split()) == ["child", "coroutine", "to_thread"]


@in_a_worker
def test_a_plain_thread_passes_and_one_with_the_context_is_captured(real: Real) -> None:
    captured = Captured()
    captured.start()
    context = contextvars.copy_context()
    threads = [
        threading.Thread(target=contextvars.Context().run, args=(print, "plain")),
        threading.Thread(target=context.run, args=(print, "with the context")),
    ]
    for thread in threads:
        thread.start()
        thread.join()
    assert captured.finish()[0] == "with the context\n"
    assert real.text()[0] == "plain\n"


@in_a_worker
def test_what_is_written_after_the_task_passes(real: Real) -> None:
    captured = Captured()
    captured.start()
    context = contextvars.copy_context()
    captured.finish()
    context.run(print, "late")
    context.run(sys.stdout.buffer.write, b"bytes\n")
    assert real.text()[0] == "late\nbytes\n"


@in_a_worker
def test_a_stream_that_a_task_closes_stays_open(real: Real) -> None:
    captured = Captured()
    captured.start()
    sys.stdout.close()
    print("still there")
    assert captured.finish()[0] == "still there\n"
    print("and outside")
    assert real.text()[0] == "and outside\n"


@in_a_worker
def test_the_streams_tell_of_themselves_what_scripts_ask_for(real: Real) -> None:
    captured = Captured()
    captured.start()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    told = (sys.stdout.encoding, sys.stdout.isatty(), sys.stdout.writable(), sys.stdout.readable())
    with pytest.raises(TypeError, match="must be str"):
        sys.stdout.write(b"bytes")  # type: ignore[arg-type]
    captured.finish()
    assert told == ("utf-8", False, True, False)
    assert sys.stdout.errors == real.stdout.errors == "strict"


def test_a_process_without_streams_captures_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    output.install()
    try:
        print("to nowhere")
        captured = Captured()
        captured.start()
        print("kept")
        assert captured.finish() == ("kept\n", "")
    finally:
        output.uninstall()
        for null in (sys.stdout, sys.stderr):
            null.close()


@in_a_worker
def test_installing_twice_is_installing_once(real: Real) -> None:
    first = sys.stdout
    output.install()
    assert sys.stdout is first
