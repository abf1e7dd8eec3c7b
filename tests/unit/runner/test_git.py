"""Code from Git: one commit, pinned, by a git that trusts nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from penstock.errors import InvalidArgument, NotFound, Unavailable
from penstock.jobs.spec import Git
from penstock.objects import ObjectStore
from penstock.runner.code import fetch_code
from penstock.runner.git import check_url, checkout, is_public, resolve


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "src").mkdir(parents=True)
    git(folder, "init", "--quiet")
    (folder / "src" / "train.py").write_text("print(1)")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "one")
    git(folder, "tag", "-a", "v1", "-m", "v1")
    (folder / "src" / "train.py").write_text("print(2)")
    git(folder, "commit", "--quiet", "-a", "-m", "two")
    return folder


def go_on() -> None:
    pass


@pytest.mark.parametrize(
    ("ref", "text"), [("", "print(2)"), ("main", "print(2)"), ("v1", "print(1)"), ("refs/heads/main", "print(2)")]
)
def test_a_ref_is_pinned_to_its_commit(repository: Path, tmp_path: Path, ref: str, text: str) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    commit = checkout(str(repository), ref, "", folder, local=True, go_on=go_on)
    assert (
        commit
        == git(repository, "rev-parse", f"{ref or 'HEAD'}^{{commit}}")
        == resolve(str(repository), ref, local=True)
    )
    assert (folder / "src" / "train.py").read_text() == text
    assert not (folder / ".git").exists()


def test_the_pinned_commit_is_used_when_the_branch_has_moved(repository: Path, tmp_path: Path) -> None:
    first = git(repository, "rev-parse", "HEAD~1")
    objects = ObjectStore(tmp_path / "objects")
    (tmp_path / "code").mkdir()
    code = Git(repository.as_uri(), "main", first, "src")
    folder, used = fetch_code(code, objects, tmp_path / "code", local=True, go_on=go_on)
    assert (folder / "train.py").read_text() == "print(1)"
    assert used == {"url": code.url, "ref": "main", "commit": first, "subdirectory": "src"}


def test_hooks_and_submodules_do_nothing(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = tmp_path / "home"
    (evil / "hooks").mkdir(parents=True)
    hook = evil / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/hooked\n")
    hook.chmod(0o755)
    (evil / ".gitconfig").write_text(
        f'[core]\n\thooksPath = {evil}/hooks\n[alias]\n\tcheckout = "!touch {tmp_path}/aliased"\n'
    )
    monkeypatch.setenv("HOME", str(evil))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(evil / ".gitconfig"))
    (repository / ".gitmodules").write_text('[submodule "x"]\n\tpath = x\n\turl = ext::sh -c "touch hooked"\n')
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "three", "--no-verify")
    before = {p.name for p in tmp_path.iterdir()}
    (tmp_path / "code").mkdir()
    checkout(str(repository), "main", "", tmp_path / "code", local=True, go_on=go_on)
    assert {p.name for p in tmp_path.iterdir()} == before | {"code"}


def test_what_is_not_there_says_so(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    with pytest.raises(NotFound, match="no branch or tag 'nope'"):
        resolve(str(repository), "nope", local=True)
    with pytest.raises((NotFound, Unavailable)):
        checkout(str(repository), "main", "0" * 40, tmp_path / "code", local=True, go_on=go_on)
    with pytest.raises(NotFound, match="no repository"):
        resolve(str(tmp_path / "nowhere"), local=True)
    with pytest.raises(Unavailable, match="could not fetch"):
        resolve(str(tmp_path), local=True)
    with pytest.raises(NotFound, match="no folder 'lib'"):
        code = Git(str(repository), "main", "", "lib")
        fetch_code(code, ObjectStore(tmp_path / "o"), tmp_path / "code", local=True, go_on=go_on)


@pytest.mark.parametrize("ref", ["--upload-pack=touch x", "-x", "a..b", "a b", "a;b", "$(x)", "a" * 300])
def test_a_ref_is_no_option(repository: Path, ref: str) -> None:
    with pytest.raises(InvalidArgument):
        resolve(str(repository), ref, local=True)


@pytest.mark.parametrize(
    "url",
    ["http://example.org/x", "ssh://git@example.org/x", "git@example.org:x", "ext::sh -c id", "git://example.org/x",
     "https://", "https://user:secret@example.org/x", "--upload-pack=id", "file://host/x", "relative/path",
     "/etc", "file:///etc", "", "https://[::1", "https://example.org:port/x"],
)  # fmt: skip
def test_other_sources_are_refused(url: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_url(url, local=False)
    assert caught.value.violations[0].field == "code.git.url"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "10.1.2.3", "192.168.0.1", "169.254.169.254", "[::1]", "[fd00::1]", "0.0.0.0",
             "[::ffff:10.0.0.1]", "[::ffff:127.0.0.1]", "100.64.0.1", "2130706433", "0x7f.1", "[64:ff9b:1::1]"]
)  # fmt: skip
def test_private_and_metadata_addresses_are_refused(host: str) -> None:
    with pytest.raises(InvalidArgument, match="private, local or metadata"):
        check_url(f"https://{host}/x", local=True)


@pytest.mark.parametrize(
    ("address", "public"), [("8.8.8.8", True), ("2606:4700::1", True), ("224.0.0.1", False), ("fe80::1%eth0", False)]
)
def test_addresses_of_the_internet_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_stopping_ends_git(repository: Path, tmp_path: Path) -> None:
    """A fetch that hangs is ended as soon as the job is cancelled."""
    fifo = tmp_path / "hanging"
    fifo.mkdir()
    git(fifo, "init", "--quiet", "--bare")
    os.mkfifo(fifo / "packed-refs")

    def cancelled() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resolve(str(fifo), local=True, go_on=cancelled)
