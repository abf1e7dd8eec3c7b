"""Resource names (AIP-122) and their only parser.

A name is the full identity of a resource, such as `projects/vision/datasets/digits/versions/3`. Parts that users
choose freely (record keys, subjects of members) are percent-encoded in a name and plain everywhere else.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from urllib.parse import quote, unquote

from penstock.errors import InvalidArgument

# In the order in which they are prepared; tokens cannot be checked before the project service answers.
SERVICES = ("project", "dataset", "training", "tuning", "evaluation", "serving", "pipeline", "lineage")
# kind -> (owning service, pattern). Order matters nowhere: patterns are unambiguous by their collection words.
PATTERNS: dict[str, tuple[str, str]] = {
    "project": ("project", "projects/{project}"),
    "token": ("project", "projects/{project}/tokens/{token}"),
    "secret": ("project", "projects/{project}/secrets/{secret}"),
    "member": ("project", "projects/{project}/members/{member}"),
    "publisher": ("project", "projects/{project}/publishers/{publisher}"),
    "audit_entry": ("project", "projects/{project}/auditEntries/{audit_entry}"),
    "dataset": ("dataset", "projects/{project}/datasets/{dataset}"),
    "dataset_version": ("dataset", "projects/{project}/datasets/{dataset}/versions/{version}"),
    "draft": ("dataset", "projects/{project}/datasets/{dataset}/drafts/{draft}"),
    "import": ("dataset", "projects/{project}/datasets/{dataset}/imports/{import}"),
    "record": ("dataset", "projects/{project}/datasets/{dataset}/records/{record}"),
    "run": ("training", "projects/{project}/runs/{run}"),
    "model": ("training", "projects/{project}/models/{model}"),
    "model_version": ("training", "projects/{project}/models/{model}/versions/{version}"),
    "study": ("tuning", "projects/{project}/studies/{study}"),
    "trial": ("tuning", "projects/{project}/studies/{study}/trials/{trial}"),
    "evaluation": ("evaluation", "projects/{project}/evaluations/{evaluation}"),
    "endpoint": ("serving", "projects/{project}/endpoints/{endpoint}"),
    "revision": ("serving", "projects/{project}/endpoints/{endpoint}/revisions/{revision}"),
    "prediction": ("serving", "projects/{project}/endpoints/{endpoint}/revisions/{revision}/predictions/{prediction}"),
    "pipeline": ("pipeline", "projects/{project}/pipelines/{pipeline}"),
    "pipeline_run": ("pipeline", "projects/{project}/pipelines/{pipeline}/runs/{run}"),
    "decision": ("pipeline", "projects/{project}/pipelines/{pipeline}/decisions/{decision}"),
}

ENCODED = frozenset({"record", "member"})  # variables whose values are any text, percent-encoded in a name
NUMBERED = frozenset({"version", "trial", "revision"})  # variables whose values are 1, 2, 3, ...
MAX_KEY_BYTES = 1024
OWN_DRAFT = "-"  # as the id of a draft: that of the caller

_ID = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_WORD = re.compile(r"[A-Za-z0-9._~%-]{1,3072}")


def _compiled(pattern: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    words = pattern.split("/")
    return tuple(words[0::2]), tuple(word[1:-1] for word in words[1::2])


_SHAPES = {
    _compiled(pattern)[0]: (kind, service, _compiled(pattern)[1]) for kind, (service, pattern) in PATTERNS.items()
}


@dataclass(frozen=True)
class ResourceName:
    """A parsed name: `kind` as in PATTERNS, the owning `service`, and the decoded value of each variable."""

    kind: str
    service: str
    ids: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return build(self.kind, *(value for _, value in self.ids))

    def __getitem__(self, variable: str) -> str:
        return dict(self.ids)[variable]

    @property
    def project(self) -> str:
        """The id of the project that the resource belongs to."""
        return self.ids[0][1]

    @property
    def id(self) -> str:
        """The last variable's value: the resource's own id, decoded."""
        return self.ids[-1][1]

    @property
    def number(self) -> int:
        """The last variable's value as a number, for versions, revisions and trials."""
        return int(self.id)

    @property
    def parent(self) -> str:
        """The name without its last collection and id."""
        return str(self).rsplit("/", 2)[0]


def parse(text: str, *, kind: str | None = None, field: str = "name") -> ResourceName:
    """Parse a resource name; `kind` asks for one of that kind. Raises InvalidArgument, naming `field`."""
    words = text.split("/")
    shape = _SHAPES.get(tuple(words[0::2])) if len(words) % 2 == 0 else None
    if shape is None or (kind is not None and shape[0] != kind):
        wanted = f"like {PATTERNS[kind][1]}" if kind else "such as projects/{project}/datasets/{dataset}"
        raise InvalidArgument(f"'{text[:200]}' is not a resource name {wanted}.", field=field)
    found, service, variables = shape
    values = tuple(_decode(variable, word, field) for variable, word in zip(variables, words[1::2], strict=True))
    return ResourceName(found, service, tuple(zip(variables, values, strict=True)))


def _decode(variable: str, word: str, field: str) -> str:
    if not _WORD.fullmatch(word) or word in (".", ".."):
        raise InvalidArgument(f"'{word[:80]}' is not a valid {variable} in a resource name.", field=field)
    if variable in ENCODED:
        return check_key(unquote(word), field)
    if variable in NUMBERED and not (word.isascii() and word.isdigit() and word[0] != "0" and len(word) < 13):
        raise InvalidArgument(f"'{word[:80]}' is not a number of a {variable}: use 1, 2, 3, …", field=field)
    return word


def build(kind: str, *ids: str | int) -> str:
    """The text of a name of `kind`, from the values of its variables in order (record keys and members plain)."""
    collections, variables = _compiled(PATTERNS[kind][1])
    if len(ids) != len(variables):
        raise ValueError(f"a {kind} name takes {variables}, not {ids}")
    encoded = (quote(str(v), safe="") if var in ENCODED else str(v) for var, v in zip(variables, ids, strict=True))
    return "/".join(f"{c}/{v}" for c, v in zip(collections, encoded, strict=True))


def variables(kind: str) -> list[str]:
    """The variables of a name of `kind` in order, the project first."""
    return list(_compiled(PATTERNS[kind][1])[1])


def project_of(text: str) -> str:
    """The project id of any resource name or parent."""
    words = text.split("/")
    if len(words) < 2 or words[0] != "projects" or not _ID.fullmatch(words[1]):
        raise InvalidArgument(f"'{text[:200]}' does not begin with projects/{{project}}.", field="name")
    return words[1]


def check_id(value: str, field: str) -> str:
    """Accept an id that a user chose (a DNS label that begins with a letter); raises InvalidArgument."""
    if not _ID.fullmatch(value):
        raise InvalidArgument(
            f"'{value[:80]}' is not a valid id: use 1 to 63 lower-case letters, digits and '-', a letter first.",
            field=field,
        )
    return value


def check_key(value: str, field: str) -> str:
    """Accept a record key: 1 byte to 1 KiB of UTF-8 without NUL; raises InvalidArgument."""
    size = len(value.encode("utf-8", "surrogatepass"))
    if not 1 <= size <= MAX_KEY_BYTES or "\x00" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise InvalidArgument(
            f"A key is 1 to {MAX_KEY_BYTES} bytes of UTF-8 without NUL; this has {size}.", field=field
        )
    return value


def new_id(caller: str, request_id: str = "") -> str:
    """A server-made id: the same for the same caller and request id (AIP-155), random without a request id."""
    if not request_id:
        return "r" + secrets.token_hex(9)
    return "r" + hashlib.sha256(f"{caller}\n{request_id}".encode()).hexdigest()[:18]
