"""The exceptions: their bases, codes, texts, and that they survive pickling."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import pytest

import miniflow
from miniflow import errors

BASES = {
    errors.EngineError: (Exception,),
    errors.TaskError: (errors.EngineError,),
    errors.QueueError: (errors.EngineError,),
    errors.ConfigError: (errors.EngineError, ValueError),
    errors.ExecutorError: (errors.EngineError,),
    errors.WorkerError: (errors.EngineError,),
    errors.WorkerCrashed: (errors.WorkerError,),
    errors.TaskTimeout: (errors.TaskError, TimeoutError),
    errors.TaskCancelled: (errors.TaskError,),
    errors.QueueFull: (errors.QueueError,),
}


@pytest.mark.parametrize("kind", BASES, ids=lambda kind: kind.__name__)
def test_an_exception_has_its_bases_its_code_and_its_text(kind):
    assert issubclass(kind, BASES[kind])
    error = kind("went wrong", "XYZ001")
    assert (error.message, error.code, error.args) == ("went wrong", "XYZ001", ("went wrong",))
    assert str(error) == "[XYZ001] went wrong"
    assert getattr(miniflow, kind.__name__) is kind


@pytest.mark.parametrize("kind", BASES, ids=lambda kind: kind.__name__)
def test_an_exception_without_a_code_has_one_that_is_in_the_table(kind):
    error = kind("went wrong")
    assert error.code in errors.CODES
    assert str(error) == f"[{error.code}] went wrong"


def test_no_two_exceptions_share_a_default_code():
    codes = [kind.default_code for kind in BASES]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("kind", BASES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "again", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy], ids=["pickle", "copy"]
)
def test_an_exception_is_the_same_after_pickling(kind, again):
    error = kind("went wrong", "XYZ001")
    error.extra = [1, 2]
    other = again(error)
    assert type(other) is kind
    assert (str(other), other.args, other.__dict__) == (str(error), error.args, error.__dict__)


def test_a_subclass_with_a_constructor_of_its_own_can_be_pickled():
    error = Peculiar(a=1, b=2)
    other = pickle.loads(pickle.dumps(error))
    assert (type(other), str(other), other.both) == (Peculiar, "[TASK000] of 1 and 2", (1, 2))


class Peculiar(errors.TaskError):
    def __init__(self, *, a, b):
        super().__init__(f"of {a} and {b}")
        self.both = a, b


def test_a_task_error_names_its_task():
    assert errors.TaskError("x", task_id="some id").task_id == "some id"
    assert errors.TaskError("x").task_id is None


def test_a_crash_by_a_signal_names_the_signal():
    error = errors.WorkerCrashed(signal=9, worker=3, attempt=2)
    assert str(error) == "[WORKER001] worker 3 died of SIGKILL"
    assert (error.signal, error.exit_code, error.worker, error.attempt) == (9, None, 3, 2)
    other = pickle.loads(pickle.dumps(error))
    assert (other.signal, other.worker, other.attempt, other.collateral) == (9, 3, 2, False)


def test_a_crash_by_an_exit_names_the_code():
    assert "exited with code 3" in str(errors.WorkerCrashed(exit_code=3))


def test_a_crash_whose_report_does_not_name_the_signal_does():
    error = errors.WorkerCrashed(signal=11, report="worker 1 (pid 5) is gone")
    assert error.message == "worker 1 (pid 5) is gone (died of SIGSEGV)"
    assert error.report == "worker 1 (pid 5) is gone"


def test_a_crash_of_one_that_ran_beside_others_says_so():
    error = errors.WorkerCrashed(signal=9, collateral=True)
    assert error.collateral
    assert "may be to blame" in error.message


def test_a_signal_without_a_name_is_told_by_its_number():
    assert errors.signal_name(9) == "SIGKILL"
    assert errors.signal_name(99) == "signal 99"


def test_every_code_that_is_raised_is_in_the_table_and_the_other_way_round():
    sources = Path(miniflow.__file__).parent
    used = {
        code
        for path in sources.rglob("*.py")
        if path.name != "errors.py"
        for code in re.findall(r"\b(?:ENG|TASK|QUEUE|CONFIG|EXEC|WORKER)[0-9]{3}\b", path.read_text())
    }
    defaults = {kind.default_code for kind in BASES}
    assert used | defaults == set(errors.CODES)
