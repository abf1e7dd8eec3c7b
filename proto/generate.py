"""Generates libs/penstock/api from proto/: messages, gRPC stubs, typing stubs and the edge's descriptor set.

`--check` writes nothing and fails if the committed code is not what the protos give.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

import google.api
from grpc_tools import protoc  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
TARGET = ROOT / "libs" / "penstock" / "api"
BINARIES = Path(sys.executable).parent
# google.rpc must be in the descriptor set for Envoy to write error details as JSON.
DETAILS = ("google/rpc/status.proto", "google/rpc/error_details.proto", "google/rpc/code.proto")


def _protoc(*arguments: str) -> None:
    google_protos = Path(next(iter(google.api.__path__))).parent.parent
    well_known = resources.files("grpc_tools") / "_proto"
    command = ["protoc", f"-I{PROTO}", f"-I{google_protos}", f"-I{well_known}", *arguments]
    if protoc.main(command) != 0:
        sys.exit(1)


def generate(out: Path) -> None:
    """Write the whole generated package below `out` (so that `out/penstock/api` is it)."""
    sources = sorted(str(p.relative_to(PROTO)) for p in PROTO.glob("penstock/**/*.proto"))
    _protoc(
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--plugin=protoc-gen-mypy={BINARIES / 'protoc-gen-mypy'}",
        f"--mypy_out=quiet:{out}",
        f"--plugin=protoc-gen-mypy_grpc={BINARIES / 'protoc-gen-mypy_grpc'}",
        f"--mypy_grpc_out=quiet:{out}",
        *sources,
    )
    api = out / "penstock" / "api"
    for folder in (api, *(p for p in api.rglob("*") if p.is_dir())):
        (folder / "__init__.py").write_text('"""Generated from proto/ by `make proto`; not edited by hand."""\n')
    _protoc(
        "--include_imports",
        "--include_source_info",
        f"--descriptor_set_out={api / 'descriptors.binpb'}",
        *sources,
        *DETAILS,
    )


def lint() -> int:
    """Run `buf lint` on what protoc understood, Penstock's own files only."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.binpb"
        sources = sorted(str(p.relative_to(PROTO)) for p in PROTO.glob("penstock/**/*.proto"))
        _protoc("--include_imports", "--include_source_info", f"--descriptor_set_out={image}", *sources)
        only = [argument for source in sources for argument in ("--path", source)]
        return subprocess.run(
            [BINARIES / "buf", "lint", image, "--config", PROTO / "buf.yaml", *only], check=False
        ).returncode


def _differences(old: Path, new: Path) -> list[str]:
    files = {p.relative_to(root) for root in (old, new) for p in root.rglob("*") if p.is_file() and p.suffix != ".pyc"}

    def same(file: Path) -> bool:
        one, other = old / file, new / file
        return one.exists() and other.exists() and filecmp.cmp(one, other, shallow=False)

    return sorted(str(f) for f in files if not same(f))


def main() -> int:
    """Generate, check or lint, as the arguments say; answers the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the committed code is out of step")
    parser.add_argument("--lint", action="store_true", help="run buf lint")
    options = parser.parse_args()
    if options.lint:
        return lint()
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        made = Path(folder) / "penstock" / "api"
        if options.check:
            stale = _differences(TARGET, made)
            if stale:
                print("Generated code is out of step with proto/; run `make proto`:", *stale, sep="\n  ")
            return 1 if stale else 0
        shutil.rmtree(TARGET, ignore_errors=True)
        shutil.copytree(made, TARGET)
    return 0


if __name__ == "__main__":
    sys.exit(main())
