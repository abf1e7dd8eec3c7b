"""`penstock lineage …`"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from penstock.cli.common import Session, connected, enum_name, to_dict
from penstock.cli.paging import pages

if TYPE_CHECKING:
    from penstock.api.lineage.v1 import lineage_service_pb2 as pb


@click.group()
def lineage() -> None:
    """Trace a prediction; see what a record led to."""


@lineage.command()
@click.argument("name")
@click.option("--changed-since", default="", metavar="N|all", help="Compare the records with this dataset version.")
@click.option(
    "--records", "limit", default=20, type=click.IntRange(0), show_default=True, help="How many records to print."
)
@connected
def trace(session: Session, name: str, changed_since: str, limit: int) -> None:
    """All that a resource came from: a prediction's revision, model, run, code, dataset version and records."""
    from penstock.api.lineage.v1 import lineage_service_pb2 as pb

    writes = session.client.last_writes
    found = session.client.lineage.Trace(pb.TraceRequest(name=name, at_least=writes))
    request = pb.ListTracedRecordsRequest(
        name=name, changed_since=changed_since, page_size=min(limit, 1000), at_least=writes
    )
    first = session.client.lineage.ListTracedRecords(request)
    records = list(first.records)
    if first.next_page_token and len(records) < limit:
        request.page_token = first.next_page_token
        records += pages(session.client.lineage.ListTracedRecords, request, "records", limit - len(records))
    if session.json:
        document = to_dict(found)
        document["records"] = [to_dict(record) for record in records]
        document["comparedWith"] = first.compared_with
        session.show_json(document)
        return
    click.echo("\n".join(tree(name, found.nodes, found.edges)))
    if found.correlation_id:
        click.echo(f"correlation id: {found.correlation_id}")
    if found.stale:
        session.note(f"(as of {found.as_of.ToJsonString()}; newer events are still being read)")
    since = f" changed since {first.compared_with}" if first.compared_with else ""
    click.echo(f"\nrecords{since}:")
    session.show_list(
        records,
        [
            ("KEY", lambda r: r.key),
            ("REVISION", lambda r: r.revision),
            ("CHANGE", lambda r: enum_name(r, "change").lower() if r.change else ""),
            ("FIELDS", lambda r: ", ".join(r.fields)),
            ("AUTHOR", lambda r: r.author),
            ("WHY", lambda r: r.why),
        ],
    )


def tree(name: str, nodes: Sequence[pb.Node], edges: Sequence[pb.Edge]) -> list[str]:
    """The graph below `name` as indented lines; a node that was shown already is only named."""
    known = {node.name: node for node in nodes}
    sources: dict[str, list[tuple[str, str]]] = {}
    for edge in edges:
        sources.setdefault(edge.target, []).append((edge.relation, edge.source))
    lines: list[str] = []
    seen: set[str] = set()

    def walk(current: str, prefix: str, label: str) -> None:
        node = known.get(current)
        extra = ""
        if node is not None and current not in seen:
            extra = "  ".join(
                f"{k}={v}" for k, v in sorted(to_dict(node).get("attributes", {}).items()) if _telling(k, v)
            )
        lines.append(f"{prefix}{label}{current}" + (f"  ({extra})" if extra else ""))
        if current in seen:
            return
        seen.add(current)
        for relation, source in sorted(sources.get(current, [])):
            walk(source, prefix + "  ", f"└ {relation}: ")

    walk(name, "", "")
    return lines


def _telling(key: str, value: object) -> bool:
    """Whether a person who reads the tree wants an attribute: no zeros, no digests, no names (they are edges)."""
    if key == "correlation_id":  # the same for all; said once below the tree
        return False
    if isinstance(value, str):
        return bool(value) and not value.startswith(("sha256:", "projects/", "algorithm:"))
    return isinstance(value, (int, float)) and value is not False and value != 0


@lineage.command()
@click.argument("name")
@connected
def impact(session: Session, name: str) -> None:
    """All that a resource led to: a record's versions, runs, models and endpoints."""
    from penstock.api.lineage.v1 import lineage_service_pb2 as pb

    found = session.client.lineage.Impact(pb.ImpactRequest(name=name, at_least=session.client.last_writes))
    if session.json:
        session.show(found)
        return
    session.show_list(
        found.nodes,
        [
            ("KIND", lambda n: n.kind),
            ("NAME", lambda n: n.name),
            ("TIME", lambda n: n.time.ToJsonString() if n.HasField("time") else ""),
        ],
    )
