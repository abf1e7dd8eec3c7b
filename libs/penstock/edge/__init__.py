"""Everything that writes Envoy's configuration and reads what Envoy says about it.

One package, shared by the platform's starter, the project service and the serving service (see docs/adr/0003).
"""

from penstock.edge.access_log import AccessRecord, Position
from penstock.edge.admin import Admin
from penstock.edge.clusters import PREDICTION_HEADER
from penstock.edge.edge import Edge
from penstock.edge.filters import AUDIENCE, ISSUER, PIN_HEADER
from penstock.edge.model import Attempts, Member, Tls

__all__ = [
    "AUDIENCE",
    "ISSUER",
    "PIN_HEADER",
    "PREDICTION_HEADER",
    "AccessRecord",
    "Admin",
    "Attempts",
    "Edge",
    "Member",
    "Position",
    "Tls",
]
