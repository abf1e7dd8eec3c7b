"""The conventions of the code that can be checked by reading it, each with a sample that the check must catch."""

from __future__ import annotations

import ast
import importlib.metadata
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
MAX_FILE, MEDIAN_FILE = 300, 150
MAX_FUNCTION, USUAL_FUNCTION = 60, 30  # lines; nine of ten functions are no longer than usual
# Hands the whole environment on to the program that takes its place, and looks at none of it.
PASSES_ON = "libs/penstock/backing/_launch.py"
SETTINGS = "libs/penstock/runtime/settings.py"
UNPICKLERS = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "torch",
    "jsonpickle",
}
BASE = ["errors", "names", "objects", "runner", "runner.job", "run", "jobs.shim", "jobs.spec", "sdk", "sdk.client"]


def product() -> dict[str, ast.Module]:
    """The files of the product that people write, parsed, by path."""
    paths = [*(ROOT / "libs" / "penstock").rglob("*.py"), *(ROOT / "services").rglob("*.py")]
    written = [path for path in paths if "api" not in path.relative_to(ROOT).parts[:3]]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in sorted(written)}


FILES = product()


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def _is(node: ast.Call, keyword: str, value: object) -> bool:
    return any(k.arg == keyword and isinstance(k.value, ast.Constant) and k.value.value == value for k in node.keywords)


def unpickling(tree: ast.Module) -> Iterator[str]:
    """What makes code out of data."""
    yield from (name for name in imported(tree) if name.split(".")[0] in UNPICKLERS)
    for name, node in calls(tree):
        if name in ("eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load"):
            yield name
        if _is(node, "allow_pickle", True) or _is(node, "shell", True):
            yield f"{name}(…)"


def environment_reads(tree: ast.Module) -> Iterator[str]:
    """Uses of the process's environment, but for those that replace it."""
    writes = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in ("clear", "update")}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and node.attr in ("environ", "environb", "getenv")
            and id(node) not in writes
        ):
            yield ast.unparse(node)
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (alias.name for alias in node.names if alias.name in ("environ", "getenv", "environb"))


def swallowed(tree: ast.Module) -> Iterator[str]:
    """Errors of any kind that nobody hears of."""
    broad = ("Exception", "BaseException")
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            kinds = {"BaseException"} if node.type is None else {ast.unparse(part) for part in _parts(node.type)}
            silent = all(isinstance(step, (ast.Pass, ast.Continue)) or _is_ellipsis(step) for step in node.body)
            if silent and kinds & set(broad):
                yield f"line {node.lineno}"
    for name, call in calls(tree):
        if name.endswith("suppress") and any(ast.unparse(argument) in broad for argument in call.args):
            yield f"line {call.lineno}"


def _parts(node: ast.expr) -> list[ast.expr]:
    return list(node.elts) if isinstance(node, ast.Tuple) else [node]


def _is_ellipsis(step: ast.stmt) -> bool:
    return isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant) and step.value.value is ...


def open_to_the_network(tree: ast.Module) -> Iterator[str]:
    """Addresses of all interfaces, and checks of certificates that are turned off."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in ("0.0.0.0", "[::]"):
            yield f"line {node.lineno}"
        if isinstance(node, ast.keyword) and node.arg in ("verify", "ssl", "verify_ssl"):
            yield from (f"line {node.value.lineno}" for value in [node.value] if ast.unparse(value) == "False")


Check = Callable[[ast.Module], Iterator[str]]
CHECKS: list[tuple[Check, frozenset[str], list[str]]] = [
    (
        unpickling,
        frozenset(),
        [
            "import pickle",
            "def f():\n    from joblib import load",
            "import torch.nn",
            "np.load(file, allow_pickle=True)",
            "yaml.load(text)",
            "eval(text)",
            "subprocess.run(text, shell=True)",
        ],
    ),
    (
        environment_reads,
        frozenset({SETTINGS, PASSES_ON}),
        ["import os\nos.environ['A']", "os.getenv('A')", "from os import environ", "dict(os.environ)"],
    ),
    (
        swallowed,
        frozenset(),
        [
            "try:\n    f()\nexcept Exception:\n    pass",
            "try:\n    f()\nexcept:\n    ...",
            "for x in y:\n    try:\n        f()\n    except (ValueError, BaseException):\n        continue",
            "with contextlib.suppress(Exception):\n    f()",
        ],
    ),
    (open_to_the_network, frozenset(), ["listen('0.0.0.0')", "get(url, verify=False)"]),
]


@pytest.mark.parametrize(("check", "exempt", "samples"), CHECKS, ids=lambda value: getattr(value, "__name__", ""))
def test_no_file_does_what_none_may(check: Check, exempt: frozenset[str], samples: list[str]) -> None:
    for sample in samples:
        assert list(check(ast.parse(sample))), f"the check does not see: {sample}"
    found = {name: list(check(tree)) for name, tree in FILES.items() if name not in exempt}
    assert {name: what for name, what in found.items() if what} == {}


def test_what_is_harmless_is_not_taken_for_harm() -> None:
    harmless = (
        "import os\nos.environ.clear()\ntry:\n    f()\nexcept KeyError:\n    pass\nyaml.safe_load(text)\nf.load(x)"
    )
    assert not [what for check, _, _ in CHECKS for what in check(ast.parse(harmless))]


def test_ruff_refuses_to_unpickle_too() -> None:
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--stdin-filename",
        "services/x/y.py",
        "--output-format=concise",
        "-",
    ]
    text = '"""A."""\nimport marshal\nimport pickle\n\npickle.loads(b"")\nmarshal.loads(b"")\n'
    done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT, check=False)
    assert "S301" in done.stdout and "S302" in done.stdout


def test_files_are_short() -> None:
    lengths = {name: len((ROOT / name).read_text().splitlines()) for name in FILES}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE} == {}
    assert statistics.median(lengths.values()) <= MEDIAN_FILE


def test_functions_are_short() -> None:
    lengths = [
        (name, node.name, (node.end_lineno or 0) - node.lineno + 1)
        for name, tree in FILES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [found for found in lengths if found[2] > MAX_FUNCTION] == []
    assert statistics.quantiles([length for _, _, length in lengths], n=10)[-1] <= USUAL_FUNCTION


def test_every_module_says_why_it_is_there() -> None:
    assert [name for name, tree in FILES.items() if ast.get_docstring(tree) is None] == []


def base_distributions() -> set[str]:
    """The names of what `pip install penstock` brings, without extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found, waiting = set(), [Requirement(text) for text in project["dependencies"]]
    while waiting:
        requirement = waiting.pop()
        name = requirement.name.lower().replace("_", "-")
        if name in found:
            continue
        found.add(name)
        for text in importlib.metadata.requires(name) or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                waiting.append(needed)
    return found


WITHOUT = """
import sys
absent = set({absent!r})
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(f"{{name}} is not in the base install", name=name)
sys.meta_path.insert(0, Absent())
import {names}
"""


def test_a_training_container_needs_the_base_install_only() -> None:
    base = base_distributions()
    assert len(base) <= 15
    owners = importlib.metadata.packages_distributions()
    kept = {name for name, found in owners.items() if {each.lower().replace("_", "-") for each in found} & base}
    absent = sorted(set(owners) - kept - {"penstock"})
    assert {"motor", "nats", "structlog", "click", "jwt", "aiohttp", "yaml", "sklearn"} <= set(absent)
    names = ", ".join(f"penstock.{module}" for module in BASE)
    for modules, works in ((names, True), ("penstock.store", False)):
        script = WITHOUT.format(absent=absent, names=modules)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
        assert (done.returncode == 0) == works, done.stderr[-1500:]
