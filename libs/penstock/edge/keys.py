"""What tokens are checked with: public keys and the denylist, changed while connections stay open."""

from __future__ import annotations

import json
from collections.abc import Collection

import structlog

from penstock.edge import filters
from penstock.edge.files import Folder, replace_json
from penstock.edge.model import Keys
from penstock.errors import FailedPrecondition, InvalidArgument

log = structlog.get_logger(__name__)


class KeyFiles:
    """Writes keys and denylist."""

    folder: Folder

    def set_keys_and_denylist(self, jwks: str, denied: Collection[str]) -> None:
        """Set the public keys (JWKS, JSON text) and the ids of all revoked tokens that have not expired.

        Applies to open connections too, within milliseconds. Raises InvalidArgument for what Envoy would refuse.
        """
        self._write_keys(jwks, denied)

    def keys(self) -> Keys:
        """The keys and the denylist as they were last set. Raises FailedPrecondition where they never were."""
        stored = self._stored()
        if stored is None:
            raise FailedPrecondition("The edge has no keys yet: start the platform first.")
        return stored

    def _stored(self) -> Keys | None:
        """What was last set. A damaged file is as good as none: its owners write it again."""
        try:
            stored = json.loads(self.folder.keys.read_bytes())
            return Keys(stored["jwks"], frozenset(stored["denied"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, InvalidArgument) as error:
            log.error("a damaged file is made anew", file=str(self.folder.keys), error=str(error))
            return None

    def _write_keys(self, jwks: str, denied: Collection[str] | None) -> None:
        """As `set_keys_and_denylist`; None keeps the denylist, whatever another process is about to make of it."""
        _check_jwks(jwks)
        Keys(jwks, frozenset(denied or ()))
        self.folder.prepare()
        with self.folder.locked():
            if denied is None:
                stored = self._stored()
                denied = stored.denied if stored else ()
            keys = Keys(jwks, frozenset(denied))
            replace_json(self.folder.keys, {"jwks": jwks, "denied": sorted(keys.denied)})
            replace_json(self.folder.identity, filters.identity_resource(keys))
            replace_json(self.folder.jwt, filters.jwt_resource(keys))


def _check_jwks(jwks: str) -> None:
    try:
        keys = json.loads(jwks)["keys"]
        private = [key.get("kid", "?") for key in keys if "d" in key or "k" in key]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArgument('The keys are not a JWKS: {"keys": [...]}.', field="jwks") from error
    if private or not keys:
        raise InvalidArgument(f"The edge takes one public key or more; private: {private}.", field="jwks")
