"""docs/reference/settings.md: environment variables. The names are checked against the module that reads them."""

from __future__ import annotations

import inspect
import re

from docgen.markdown import item, paragraph
from docgen.markdown import page as make_page
from penstock.runtime import settings

_INTRODUCTION = """Everything is configured by environment variables; there is no configuration file.
Options of the command line go before variables, and variables before what the home directory says. Unset,
everything is that of an embedded platform in `~/.penstock`."""

Variables = tuple[tuple[str, str], ...]

CLIENT: Variables = (
    ("PENSTOCK_URL", "Where the platform is: `http://127.0.0.1:8420`, or `https://…`. Else what `<home>/url` says."),
    ("PENSTOCK_TOKEN", "Your token. Else what `<home>/token` says: the token of the platform itself."),
    ("PENSTOCK_PROJECT", "The project (id) that commands act in; `default` unless set."),
    ("PENSTOCK_HOME", "The home directory of an embedded platform; `~/.penstock` unless set."),
    ("PENSTOCK_LOG_LEVEL", "`debug`: a command that fails by a fault of its own prints the traceback."),
)

PLATFORM: Variables = (
    ("PENSTOCK_HOME", "Where the platform keeps everything: keys, database, events, objects, logs."),
    ("PENSTOCK_PROJECT", "The project that is made at the first start; `default` unless set."),
    ("PENSTOCK_MONGODB_URI", "A MongoDB to use. `penstock up` starts an embedded one unless it is set."),
    ("PENSTOCK_OBJECTS_URL", "Where objects are kept: a `file://` URL; `<home>/objects` unless set."),
    ("PENSTOCK_LOG_LEVEL", "`info` (unless set), `debug`, `warning` or `error`."),
    ("PENSTOCK_LOG_FORMAT", "`json` (unless set: a line an entry) or `text`."),
    ("XDG_DATA_HOME", "`<here>/penstock` holds what homes share: Triton's environment; `~/.local/share` unless set."),
)

SERVICES: Variables = (
    ("PENSTOCK_URL", "The public address of the platform, as other processes find it."),
    ("PENSTOCK_NATS_URL", "Where NATS is; unless set, that of the home, or `nats://127.0.0.1:4222`."),
    ("PENSTOCK_NATS_CREDENTIALS", "A folder of `<service>.creds`; `<home>/nats/users` if that is there, else none."),
    (
        "PENSTOCK_ADDRESSES",
        "Services that run in other processes: `training=127.0.0.1:9001,tuning=127.0.0.1:9002`.",
    ),
    ("PENSTOCK_TLS_CERTIFICATE", "A PEM file. Needed, with its key, to listen on anything but loopback."),
    ("PENSTOCK_TLS_KEY", "The certificate's key, a PEM file."),
    ("PENSTOCK_TLS_CA", "The authority by which services check each other's certificates, a PEM file."),
    ("PENSTOCK_LOG_FILE", "Where to log instead of standard error; readers may move it away, it is opened again."),
)

JOBS: Variables = (
    ("PENSTOCK_INPUT_DIR", "A folder for each input; `inputs` unless set."),
    ("PENSTOCK_OUTPUT_DIR", "What is written here is kept; `outputs` unless set."),
    ("PENSTOCK_PARAMS", "A JSON file: the parameters, an object."),
    ("PENSTOCK_METRICS", "A file to append JSON lines of metrics to."),
    ("PENSTOCK_CHECKPOINT_DIR", "What the next attempt should find if this one is lost."),
    ("PENSTOCK_PRUNE", "A path; once a file is there, the trial should end soon. No study writes it yet."),
    ("OMP_NUM_THREADS", "How many threads the job may use."),
)

SECTIONS: tuple[tuple[str, str, Variables], ...] = (
    ("Clients", "Read by the CLI and by `penstock.sdk.Client`.", CLIENT),
    ("The platform on one machine", "Read by `penstock up`, `setup`, `status` and `down`.", PLATFORM),
    (
        "Service processes",
        "Read by `python -m services`, besides those above; `penstock up` sets what its services need.",
        SERVICES,
    ),
    (
        "Jobs",
        "Set for the code of a run; see [Use your own code](../how-to/use-your-own-code.md). Nothing else of these is "
        "visible to it, and no credentials.",
        JOBS,
    ),
)


def unlisted() -> set[str]:
    """Variables that the code reads and this page does not tell, or the other way round."""
    read = set(re.findall(r'"(PENSTOCK_[A-Z_]+|XDG_DATA_HOME|OMP_NUM_THREADS)"', inspect.getsource(settings)))
    return read ^ {name for _, _, variables in SECTIONS for name, _ in variables}


def page() -> str:
    """The page; raises ValueError if it is out of step with `penstock.runtime.settings`."""
    if unlisted():
        raise ValueError(f"docs/docgen/settings.py and penstock.runtime.settings differ in {sorted(unlisted())}")
    blocks = []
    for heading, text, variables in SECTIONS:
        lines = "\n".join(item(f"`{name}`: {meaning}") for name, meaning in variables)
        blocks += [f"## {heading}", paragraph(text), lines]
    return make_page("Settings", _INTRODUCTION, *blocks)
