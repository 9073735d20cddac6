"""What can be wrong with a script, as errors that travel back to the host."""

from __future__ import annotations

__all__ = [
    "ScriptEntryError",
    "ScriptError",
    "ScriptExit",
    "ScriptInterrupted",
    "ScriptNotFound",
    "ScriptSyntaxError",
]


class ScriptError(Exception):
    """A script cannot be run. Says which, what is wrong with it, and what to do about it."""

    def __init__(self, path: str, problem: str, advice: str) -> None:
        # All arguments stay in `args`: that is what pickle makes the error of again.
        super().__init__(path, problem, advice)
        self.path = path
        self.problem = problem
        self.advice = advice

    def __str__(self) -> str:
        return f"script {self.path!r}: {self.problem}; {self.advice}"


class ScriptNotFound(ScriptError):
    """There is no readable file at the script's path."""


class ScriptSyntaxError(ScriptError):
    """The script, or a file beside it that it imports, is not valid Python. The cause says where."""


class ScriptEntryError(ScriptError):
    """The script's entry point is missing, or cannot be called as it has to be."""


class ScriptInterrupted(ScriptError):
    """The script raised KeyboardInterrupt."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "it raised KeyboardInterrupt", "raise another exception to report a failure")
        self.args = (path,)


class ScriptExit(ScriptError):
    """The script called sys.exit(), which ends the task as failed whatever the code, never the worker."""

    def __init__(self, path: str, code: int | str | None) -> None:
        argument = "" if code is None else repr(code)
        super().__init__(
            path,
            f"it called sys.exit({argument})",
            "return from main() to complete the task, or raise an exception to fail it",
        )
        self.args = (path, code)
        self.code = code
