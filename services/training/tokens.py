"""What lets a job report: a token that is good for one attempt of one run, and for nothing else."""

from __future__ import annotations

from penstock import names
from penstock.rpc.caller import RUNNER
from penstock.rpc.tokens import Tokens
from services.training.model import Run

MARGIN_SECONDS = 3600.0  # for fetching inputs before the timeout begins, and for storing outputs after it
UNLIMITED_SECONDS = 30 * 24 * 3600.0


def token_id(run: str, attempt: int) -> str:
    """The `jti` of an attempt's token: it carries the attempt, so that reporting needs to look nothing up."""
    return f"{names.parse(run, kind='run').id}.{attempt}"


def mint_runner_token(tokens: Tokens, run: Run) -> str:
    """A token for the current attempt of a run."""
    ttl = (run.resources.timeout or UNLIMITED_SECONDS) + MARGIN_SECONDS
    return tokens.mint(run.name, run.project, RUNNER, ttl, token_id=token_id(run.name, run.attempt))
