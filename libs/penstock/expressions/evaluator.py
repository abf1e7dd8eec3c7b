"""The near side of the process that evaluates expressions: started when first needed, and again after it ended."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from penstock.expressions import worker

MAX_CHARS = 4_000  # of an expression; the parser overflows the stack from some 16,000 on
_ENDED = "it ends the process that evaluates it"
_SLOW = f"it takes longer than {worker.CPU_SECONDS:g} s"


class InvalidExpression(ValueError):
    """Why an expression is not CEL, or cannot be evaluated."""


def variables_of(expression: str) -> frozenset[str]:
    """The names of the variables in an expression. Raises InvalidExpression if it is not CEL."""
    return frozenset(_EVALUATOR.ask(expression, None))


def evaluate(expression: str, variables: Mapping[str, Any]) -> Any:
    """The value of an expression over JSON values, as JSON (times and durations as text).

    Blocks for about 0.1 ms, for a second of computing at most: call it in a thread. Raises InvalidExpression.
    """
    return _EVALUATOR.ask(expression, variables)


class _Evaluator:
    """One process that answers one expression at a time."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, expression: str, variables: Mapping[str, Any] | None) -> Any:
        if len(expression) > MAX_CHARS:
            raise InvalidExpression(f"it is longer than {MAX_CHARS} characters")
        question = json.dumps([expression, variables]).encode() + b"\n"
        with self._turn:
            answer = self._exchange(question)
        value, error = json.loads(answer)
        if error is not None:
            raise InvalidExpression(error)
        return value

    def _exchange(self, question: bytes) -> bytes:
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(question)
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if answer.endswith(b"\n"):
            return answer
        self._process = None
        with process:  # closes the pipes and waits
            process.kill()
        raise InvalidExpression(_SLOW if process.returncode == -signal.SIGPROF else _ENDED)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            # It ends by itself when this process does: its input is at an end then.
            self._process = subprocess.Popen(
                [sys.executable, "-I", worker.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}
            )
        return self._process


_EVALUATOR = _Evaluator()
