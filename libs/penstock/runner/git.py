"""Fetches one commit by the git program, told to trust nothing: no hooks, submodules, redirects, other protocols."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from penstock.errors import InvalidArgument, NotFound, PenstockError, Unavailable

TIMEOUT_SECONDS = 120.0
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]{0,250}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# IPv4 inside IPv6: a gateway would turn these into addresses of its own network.
_TRANSLATED = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
_QUIET = ("core.hooksPath=/dev/null", "submodule.recurse=false", "core.fsmonitor=false", "credential.helper=")
_STRICT = (
    "http.followRedirects=false",
    "protocol.allow=never",
    "gc.auto=0",
    "maintenance.auto=false",
)


def resolve(url: str, ref: str = "", *, local: bool = False, go_on: Callable[[], None] = lambda: None) -> str:
    """The commit that `ref` (a branch, tag or commit; "" for the default branch) means now in the repository at `url`.

    Raises InvalidArgument, NotFound (no such ref), Unavailable (the repository cannot be reached).
    """
    if _COMMIT.fullmatch(ref):
        return ref
    wanted = _ref(ref) or "HEAD"
    listed = _git(
        ("ls-remote", "--", *_source(url, local=local), wanted, f"{wanted}^{{}}"), url, local, Path("/"), go_on
    )
    found = {name: commit for commit, _, name in (line.partition("\t") for line in listed.splitlines())}
    for name in (wanted, f"refs/tags/{wanted}^{{}}", f"refs/tags/{wanted}", f"refs/heads/{wanted}"):
        if name in found:
            return found[name]
    missing = f"branch or tag '{ref}'" if ref else "default branch (is it empty?)"
    raise NotFound(f"The repository {url} has no {missing}.", field="code.git.ref")


def checkout(url: str, ref: str, commit: str, folder: Path, *, local: bool, go_on: Callable[[], None]) -> str:
    """Put the files of one commit (`commit`, else what `ref` means now) into `folder`; returns the commit.

    Raises InvalidArgument, NotFound, Unavailable.
    """
    if commit and not _COMMIT.fullmatch(commit):
        raise InvalidArgument(f"'{commit[:60]}' is not a full commit: use its 40 hex digits.", field="code.git.commit")
    commit = commit or resolve(url, ref, local=local, go_on=go_on)

    def git(*words: str) -> str:
        return _git(words, url, local, folder, go_on)

    git("init", "--quiet", "--template=", ".")
    source = _source(url, local=local)
    try:
        git("fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--", *source, commit)
    except Unavailable:
        # Some servers hand out branches and tags only: take the ref's history, in which the commit should be.
        git("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--", *source, _ref(ref) or "HEAD")
    try:
        git("-c", "advice.detachedHead=false", "checkout", "--quiet", "--detach", commit)
    except Unavailable as error:
        raise NotFound(
            f"The repository {url} has no commit {commit} in '{ref or 'HEAD'}'.", field="code.git.commit"
        ) from error
    shutil.rmtree(folder / ".git")
    return commit


def check_url(url: str, *, local: bool) -> None:
    """Refuse what is not to be fetched from. Raises InvalidArgument (and Unavailable if the host is not known)."""
    _source(url, local=local)
    if url.startswith("https://"):
        _addresses(url)


def split_url(url: str) -> SplitResult:
    """A URL's parts, the port a number if there is one. Raises InvalidArgument."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 (it is looked at when it is asked for)
    except ValueError as error:
        raise _bad(url, f"it is no URL: {error}") from error
    return parts


def _source(url: str, *, local: bool) -> tuple[str]:
    parts = split_url(url)
    if parts.scheme == "https" and parts.hostname and not parts.username and not parts.password:
        return (url,)
    path = parts.path if parts.scheme == "file" and not parts.netloc else url
    if path.startswith("/") and parts.scheme in ("", "file"):
        if not local:
            raise _bad(url, "repositories on the platform's own machine are not allowed here")
        if not os.path.isdir(path):
            raise NotFound(f"There is no repository at {path}.", field="code.git.url")
        return (path,)
    raise _bad(url, "use https://host/path, with no user or password in it")


def _addresses(url: str) -> tuple[str, int, list[str]]:
    """The host, port and addresses of an https URL, all of them public."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    try:
        found = sorted({str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
    except OSError as error:
        raise Unavailable(f"The host of {url} is not known: {error}.", field="code.git.url") from error
    for address in found:
        if not is_public(address):
            raise _bad(url, f"{address} is a private, local or metadata address")
    return host, port, found


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public Internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    translated = any(ip in network for network in _TRANSLATED)
    return (mapped or ip).is_global and not ip.is_multicast and not translated


def _ref(ref: str) -> str:
    if ref and (not _REF.fullmatch(ref) or ".." in ref):
        raise InvalidArgument(f"'{ref[:60]}' is not the name of a branch, tag or commit.", field="code.git.ref")
    return ref


def _git(words: Sequence[str], url: str, local: bool, folder: Path, go_on: Callable[[], None]) -> str:
    options = [*_QUIET, *_STRICT]
    if url.startswith("https://"):
        # What was checked is what git connects to, whatever the name means a moment later.
        host, port, addresses = _addresses(url)
        options += ["protocol.https.allow=always", f"http.curloptResolve={host}:{port}:{','.join(addresses)}"]
    elif local:
        options += ["protocol.file.allow=always"]
    command = ["git", *(word for option in options for word in ("-c", option)), *words]
    environment = {
        "PATH": os.defpath,
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_LFS_SKIP_SMUDGE": "1",
    }
    return _run(command, environment, folder, url, go_on)


def _run(command: list[str], environment: dict[str, str], folder: Path, url: str, go_on: Callable[[], None]) -> str:
    try:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise Unavailable(
            "The program git is needed to fetch this code; install it on the platform's machine."
        ) from error
    deadline = time.monotonic() + TIMEOUT_SECONDS
    try:
        while True:
            try:
                output, errors = process.communicate(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                go_on()
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"Fetching {url} took longer than {TIMEOUT_SECONDS:.0f} s.", field="code.git.url"
                    ) from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode != 0:
        raise Unavailable(f"git could not fetch {url}: {errors.strip()[-500:]}", field="code.git.url")
    return output


def _bad(url: str, problem: str) -> PenstockError:
    return InvalidArgument(f"Code cannot be fetched from '{url[:200]}': {problem}.", field="code.git.url")
