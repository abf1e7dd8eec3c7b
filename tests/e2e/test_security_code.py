"""Code of users on its way in: archives that are traps, repositories that are somewhere else."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from penstock.api.training.v1 import training_service_pb2 as pb
from penstock.errors import InvalidArgument, PenstockError, ResourceExhausted
from penstock.sdk.code import pack
from tests.support.attacker import Victim
from tests.support.rivals import SAME, Rival

MEGABYTE = 1 << 20
Rivals = tuple[Rival, Rival]


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for info, content in members:
            info.size = len(content) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, 0o6755
    return info


def bad_archives() -> dict[str, bytes]:
    bomb = gzip.compress(b"\0" * (16 * MEGABYTE))
    huge = tarfile.TarInfo("huge")
    huge.size = 1 << 40
    many = archive(*((member(f"d/{n}"), b"") for n in range(10_001)))
    return {
        "dots": archive((member("../../escaped"), b"x")),
        "dots inside": archive((member("a/../../../escaped"), b"x")),
        "absolute": archive((member("/tmp/escaped"), b"x")),
        "back-slashes": archive((member("..\\..\\escaped"), b"x")),
        "a link": archive((member("a", tarfile.SYMTYPE, "/etc/passwd"), b"")),
        "a link, then through it": archive((member("a", tarfile.SYMTYPE, "/tmp"), b""), (member("a/escaped"), b"x")),
        "a hard link": archive((member("a", tarfile.LNKTYPE, "/etc/shadow"), b"")),
        "a device": archive((member("a", tarfile.CHRTYPE), b"")),
        "a pipe": archive((member("a", tarfile.FIFOTYPE), b"")),
        "a NUL in a name": archive((member("a\nb"), b"x")),
        "a bomb": bomb,
        "bombs in members": archive((member("zeros"), b"\0" * (16 * MEGABYTE))),
        "a size that lies": gzip.compress(huge.tobuf()),
        "too many members": many,
        "nothing": b"",
        "no archive": os.urandom(2000),
        "cut off": archive((member("a"), os.urandom(5000)))[:3000],
        "no members": archive(),
        "plain tar": b"\0" * 10240,
    }


def test_archives_hold_files_and_folders_of_bounded_size_and_nothing_else(rivals: Rivals, victim: Victim) -> None:
    red = rivals[0]
    for why, data in bad_archives().items():
        with pytest.raises((InvalidArgument, ResourceExhausted)):
            red.client.training.CreateCodeArchive(pb.CreateCodeArchiveRequest(parent=red.name, data=data))
            raise AssertionError(why)
    good = archive((member("a/b.txt"), b"x"), (member("a/c", tarfile.DIRTYPE), b""))
    assert red.client.training.CreateCodeArchive(pb.CreateCodeArchiveRequest(parent=red.name, data=good)).digest
    assert not Path("/tmp/escaped").exists() and not list(victim.home.glob("**/escaped"))


def test_a_run_cannot_put_programs_among_the_files_of_its_model(rivals: Rivals, tmp_path: Path) -> None:
    """What such a file would do if it were let through is in tests/integration/serving/test_model_files.py."""
    (tmp_path / "train.py").write_text(
        "import os, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'penstock.algorithms', 'logistic-regression'], check=True)\n"
        "path = os.path.join(os.environ['PENSTOCK_OUTPUT_DIR'], 'model', sys.argv[1])\n"
        "open(path, 'w').write('open(\"/tmp/escaped\", \"w\")')\n"
    )
    red = rivals[0]
    sent = pb.CreateCodeArchiveRequest(parent=red.name, data=pack(tmp_path))
    code = pb.Code(archive=red.client.training.CreateCodeArchive(sent).digest)
    for name in ("__init__.py", "pickle5.py"):
        run = red.train(code, "python", "train.py", name)
        assert run.state == pb.Run.FAILED and not run.model_version
        assert f"'{name}' has no place in a model directory" in run.reason


@pytest.mark.parametrize(
    "url",
    [
        "http://github.com/x/y",
        "ssh://git@github.com/x/y",
        "git@github.com:x/y",
        "git://github.com/x/y",
        "ext::sh -c touch% /tmp/escaped",
        "https://user:password@github.com/x/y",
        "https://127.0.0.1/x",
        "https://localhost:8420/x",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://[64:ff9b::7f00:1]/x",
        "https://10.0.0.1/x",
        "https://192.168.1.1/x",
        "https://2130706433/x",
        "https://0x7f.1/x",
        "https://0/x",
        "--upload-pack=touch /tmp/escaped",
        "-oProxyCommand=touch /tmp/escaped",
        "file://elsewhere/x",
        "https://",
        "",
    ],
)
def test_code_comes_from_public_https_addresses_only(rivals: Rivals, url: str) -> None:
    red = rivals[0]
    code = pb.Code(git=pb.GitSource(url=url, ref="main"))
    version = f"{red.name}/datasets/{SAME}/versions/1"
    run = pb.Run(dataset_version=version, code=code, command=["true"])
    with pytest.raises(InvalidArgument) as caught:
        red.client.training.CreateRun(pb.CreateRunRequest(parent=red.name, run=run, validate_only=True))
    assert any("git" in v.field or "code" in v.field for v in caught.value.violations)
    assert not Path("/tmp/escaped").exists()


@pytest.mark.parametrize("ref", ["--upload-pack=x", "-h", "a..b", "a b", "main\nx", "refs/heads/*", "a" * 300])
def test_a_ref_is_the_name_of_a_ref(rivals: Rivals, ref: str, tmp_path: Path) -> None:
    red = rivals[0]
    code = pb.Code(git=pb.GitSource(url=str(tmp_path), ref=ref))
    run = pb.Run(dataset_version=f"{red.name}/datasets/{SAME}/versions/1", code=code, command=["true"])
    with pytest.raises(PenstockError):
        red.client.training.CreateRun(pb.CreateRunRequest(parent=red.name, run=run, validate_only=True))
