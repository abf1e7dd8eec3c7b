"""`model.json`: what a model directory says about its model, and its only reader.

Pure Python with the base install, since every service reads it: training refuses a bad one, serving makes Triton's
configuration from the signature and compares a started model with the examples, the SDK builds requests from it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.algorithms.tensors import Tensor, TensorSpec, differences, records_to_tensors, to_kserve
from penstock.errors import InvalidArgument

MODEL_FILE = "model.onnx"
CARD_FILE = "model.json"
SCHEMA_VERSION = 1
# What weights may be called that an ONNX file keeps outside itself ("external data"). No suffix of these makes a file
# that Python or a loader of libraries would take for code.
WEIGHTS_SUFFIXES = (".data", ".onnx_data", ".bin", ".weights")
MIN_EXAMPLES = 8
MAX_CARD_BYTES = 16 * 1024 * 1024

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*")

Label = int | str


@dataclass(frozen=True)
class ModelCard:
    """A model's description.

    `inputs` and `outputs` are the typed signature, first dimension -1 (the batch). `labels` are the classes, in the
    order of the columns of the output `probabilities`. `example_inputs` and `example_outputs` are one batch of at
    least 8 examples, outputs as computed in the run; `tolerance` is the largest difference that is no error, relative
    to the larger of 1 and the expected number. `digests` map file names to "sha256:<hex>". `details` is the rest.
    """

    task: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[Label, ...]
    framework: Mapping[str, Any]
    digests: Mapping[str, str]
    example_inputs: tuple[Tensor, ...]
    example_outputs: tuple[Tensor, ...]
    tolerance: float
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path, *, check_files: bool = True) -> ModelCard:
        """Read and check `model.json` of a model directory, and, unless told otherwise, the digests of its files.

        Raises InvalidArgument saying which part is wrong and what it should be.
        """
        path = folder / CARD_FILE
        if not path.is_file():
            raise InvalidArgument(f"the model directory has no {CARD_FILE}", field=CARD_FILE)
        if path.stat().st_size > MAX_CARD_BYTES:
            raise InvalidArgument(f"{CARD_FILE} is larger than {MAX_CARD_BYTES} bytes", field=CARD_FILE)
        card = cls.parse(path.read_bytes())
        if check_files:
            card.check_files(folder)
        return card

    @classmethod
    def parse(cls, text: bytes | str) -> ModelCard:
        """Read and check the text of a `model.json`. Raises InvalidArgument."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"{CARD_FILE} is not JSON: {error}", field=CARD_FILE) from error
        reader = _Reader(document)
        known = {"schema_version", "task", "signature", "labels", "framework", "digests", "examples", "tolerance"}
        if reader.document.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
            raise _wrong("schema_version", f"this release reads {SCHEMA_VERSION}")
        card = cls(
            task=reader.text("task"),
            inputs=reader.specs("inputs"),
            outputs=reader.specs("outputs"),
            labels=reader.labels(),
            framework=reader.mapping("framework"),
            digests=reader.digests(),
            example_inputs=reader.examples("inputs"),
            example_outputs=reader.examples("outputs"),
            tolerance=reader.tolerance(),
            details={key: value for key, value in reader.document.items() if key not in known},
        )
        card._check_examples()
        card._check_labels()
        return card

    def to_json(self) -> dict[str, Any]:
        """The document that `parse` reads."""
        return {
            "schema_version": SCHEMA_VERSION,
            "task": self.task,
            "signature": {
                "inputs": [spec.to_json() for spec in self.inputs],
                "outputs": [spec.to_json() for spec in self.outputs],
            },
            "labels": list(self.labels),
            "framework": dict(self.framework),
            "digests": dict(self.digests),
            "examples": {
                "inputs": [tensor.to_json() for tensor in self.example_inputs],
                "outputs": [tensor.to_json() for tensor in self.example_outputs],
            },
            "tolerance": self.tolerance,
            **self.details,
        }

    def check_files(self, folder: Path) -> None:
        """Compare each file with its digest. Raises InvalidArgument for one that is missing, a link, or different."""
        for name, digest in self.digests.items():
            path = folder / name
            if path.is_symlink() or not path.is_file():
                raise _wrong(f"digests.{name}", "there is no such regular file in the model directory")
            if file_digest(path) != digest:
                raise _wrong(f"digests.{name}", "the file does not have this digest; it changed after the run")

    def check_names(self, names: Iterable[str]) -> None:
        """See that a model directory holds the model and nothing else, given the relative names of all its files.

        What else there may be are weights: listed in `digests`, their names ending in one of WEIGHTS_SUFFIXES. Servers
        of the model see these files only. Raises InvalidArgument naming the first other file.
        """
        weights = {name for name in self.digests if name.endswith(WEIGHTS_SUFFIXES)}
        for name in sorted({*names, *self.digests} - weights - {MODEL_FILE, CARD_FILE}):
            raise InvalidArgument(
                f"'{name[:200]}' has no place in a model directory: it may hold {MODEL_FILE}, {CARD_FILE}, and the "
                f"model's external data, named in {CARD_FILE} under digests and ending in "
                f"{' or '.join(WEIGHTS_SUFFIXES)}. Write other files beside the directory, not into it.",
                field=name,
            )

    def request(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A KServe v2 inference request (JSON) for records with raw fields; fields not in the signature are ignored.

        Raises InvalidArgument naming the record and the field. See `tensors.records_to_tensors` for missing values.
        """
        return {"inputs": to_kserve(records_to_tensors(self.inputs, records))}

    def example_request(self) -> dict[str, Any]:
        """A KServe v2 inference request (JSON) with all examples as one batch."""
        return {"inputs": to_kserve(self.example_inputs)}

    def differences(self, outputs: Sequence[Mapping[str, Any]]) -> list[str]:
        """How the `outputs` of a KServe v2 answer to `example_request` differ from the examples'; empty: they agree."""
        return differences(self.example_outputs, outputs, self.tolerance)

    def _check_examples(self) -> None:
        rows = set()
        for part, specs, tensors in (
            ("inputs", self.inputs, self.example_inputs),
            ("outputs", self.outputs, self.example_outputs),
        ):
            if {spec.name for spec in specs} != {tensor.name for tensor in tensors}:
                raise _wrong(f"examples.{part}", f"needs exactly {', '.join(spec.name for spec in specs)}")
            by_name = {tensor.name: tensor for tensor in tensors}
            for spec in specs:
                try:
                    rows.add(by_name[spec.name].check(spec))
                except ValueError as error:
                    raise _wrong(f"examples.{part}.{spec.name}", str(error)) from error
        if len(rows) != 1 or min(rows) < MIN_EXAMPLES:
            raise _wrong("examples", f"needs one batch of at least {MIN_EXAMPLES}, the same size in every tensor")

    def _check_labels(self) -> None:
        if self.task != "classification":
            return
        if not self.labels:
            raise _wrong("labels", "a classification model lists its classes")
        for spec in self.outputs:
            if spec.name == "probabilities" and spec.shape[1:] != (len(self.labels),):
                raise _wrong("labels", f"has {len(self.labels)} classes, the output probabilities {spec.shape[1:]}")


def file_digest(path: Path) -> str:
    """The digest of a file's bytes, "sha256:<hex>"."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


class _Reader:
    """Takes the parts out of an untrusted document; whatever is not as it should be is an InvalidArgument."""

    def __init__(self, document: object) -> None:
        if not isinstance(document, dict):
            raise InvalidArgument(f"{CARD_FILE} is not a JSON object", field=CARD_FILE)
        self.document: dict[str, Any] = document

    def text(self, name: str) -> str:
        value = self.document.get(name)
        if not isinstance(value, str) or not value:
            raise _wrong(name, "needs a string")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        value = self.document.get(name, {})
        if not isinstance(value, dict):
            raise _wrong(name, "needs an object")
        return value

    def specs(self, part: str) -> tuple[TensorSpec, ...]:
        listed = self.mapping("signature").get(part)
        if not isinstance(listed, list) or not listed:
            raise _wrong(f"signature.{part}", "needs a list of tensors with name, datatype and shape")
        specs = []
        for index, item in enumerate(listed):
            try:
                specs.append(TensorSpec.parse(item))
            except ValueError as error:
                raise _wrong(f"signature.{part}[{index}]", str(error)) from error
        if len({spec.name for spec in specs}) < len(specs):
            raise _wrong(f"signature.{part}", "names a tensor twice")
        return tuple(specs)

    def labels(self) -> tuple[Label, ...]:
        value = self.document.get("labels", [])
        right = isinstance(value, list) and all(isinstance(v, int | str) and not isinstance(v, bool) for v in value)
        if not right or len(set(value)) < len(value) or len({type(v) for v in value}) > 1:
            raise _wrong("labels", "needs a list of different strings, or of different whole numbers")
        return tuple(value)

    def digests(self) -> dict[str, str]:
        value = self.mapping("digests")
        if MODEL_FILE not in value:
            raise _wrong("digests", f"needs the digest of {MODEL_FILE}")
        for name, digest in value.items():
            if not _FILE_NAME.fullmatch(name) or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
                raise _wrong(f"digests.{name}", "needs a relative file name and sha256:<64 hex digits>")
        return value

    def examples(self, part: str) -> tuple[Tensor, ...]:
        listed = self.mapping("examples").get(part)
        if not isinstance(listed, list) or not listed:
            raise _wrong(f"examples.{part}", "needs a list of KServe v2 tensors")
        tensors = []
        for index, item in enumerate(listed):
            try:
                tensors.append(Tensor.parse(item))
            except ValueError as error:
                raise _wrong(f"examples.{part}[{index}]", str(error)) from error
        return tuple(tensors)

    def tolerance(self) -> float:
        value = self.document.get("tolerance")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise _wrong("tolerance", "needs a number >= 0 and < 1")
        return float(value)


def _wrong(part: str, problem: str) -> InvalidArgument:
    return InvalidArgument(f"{CARD_FILE}: {part}: {problem}", field=f"{CARD_FILE}:{part}")
