"""Every promise has a test that can fail: without the mechanism it does, with it it passes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.chaos.conftest import Report
from tests.chaos.pytests import Result, run_tests
from tests.chaos.removals import CONTROLS, Control

# A removal that only breaks the program shows nothing.
_BROKEN = ("TypeError", "AttributeError", "NameError", "ImportError", "Failed: Timeout")
KTH_WRITE = "any_write or every_object_write or every_step or each_write"


@pytest.mark.timeout(900)
def test_with_all_mechanisms_the_tests_of_the_promises_pass(tmp_path: Path) -> None:
    results = run_tests(tmp_path, *sorted({control.test for control in CONTROLS}))
    assert [result for result in results if result.outcome != "passed"] == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_without_the_mechanism_the_test_of_the_promise_fails(control: Control, report: Report, tmp_path: Path) -> None:
    results = run_tests(
        tmp_path, "-x", "-p", "tests.chaos.removals", "--without", control.name, control.test, "--timeout=240"
    )
    failed = [result for result in results if result.outcome == "failed"]
    how = failed[0].message[:100] if failed else f"NOTHING FAILED: {_outcomes(results)}"
    report.control(control.promise, control.mechanism, control.test.partition("tests/")[2], how)
    assert failed and not failed[0].message.startswith(_BROKEN), how


@pytest.mark.timeout(1800)
def test_every_suite_with_a_fault_at_every_write_passes(report: Report, tmp_path: Path) -> None:
    results = run_tests(tmp_path, "tests/integration", "-k", KTH_WRITE, "--timeout=600")
    for result in results:
        report.suite(result.file, result.test, result.outcome)
    assert [result for result in results if result.outcome != "passed"] == []


def _outcomes(results: Sequence[Result]) -> str:
    return ", ".join(f"{result.test} {result.outcome} {result.message}" for result in results)[:200]
