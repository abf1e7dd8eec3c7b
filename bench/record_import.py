"""Importing records through the API, against writing the very same documents into the same server by its driver."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.write_concern import WriteConcern

from bench.harness import Limit, Options, Result, Row, interleave, per_second, say, seconds
from bench.platform import PROJECT, Platform, running_platform
from bench.records import KEY, LABEL, write_jsonl
from penstock.api.dataset.v1 import dataset_service_pb2 as pb

LIMIT = Limit(">=", 0.6)
DURABLE = WriteConcern(w="majority", j=True)
Documents = list[dict[str, Any]]


class Raw:
    """The peer: `insert_many` by pymongo. Of two batch sizes, the one that turned out faster here."""

    def __init__(self, uri: str) -> None:
        self._client: MongoClient[dict[str, Any]] = MongoClient(uri, retryWrites=False)
        self._numbers = itertools.count(1)
        self.batch = 500

    def copy(self, dataset: str) -> tuple[Documents, list[str]]:
        """The documents that an import left in the database, and the fields that are indexed."""
        database = self._client["penstock_dataset"]
        wanted = f"revisions_{PROJECT}_{dataset}"
        found = database[next(name for name in database.list_collection_names() if name.startswith(wanted))]
        indexes = [field for index in found.list_indexes() for field in index["key"] if field != "_id"]
        return list(found.find()), indexes

    def seconds(self, documents: Documents, indexes: list[str]) -> float:
        """How long it takes to insert them into a new collection that has the indexes."""
        name = f"raw{next(self._numbers)}"
        made = self._client[name]["rows"]
        for field in indexes:
            made.create_index(field)
        batches = [documents[at : at + self.batch] for at in range(0, len(documents), self.batch)]
        collection = made.with_options(write_concern=DURABLE)

        def insert() -> None:
            for batch in batches:
                collection.insert_many(batch, ordered=False)

        took = seconds(insert)
        self._client.drop_database(name)
        return took

    def tune(self, documents: Documents, indexes: list[str]) -> None:
        """Choose the faster batch size."""
        tried = {}
        for self.batch in (500, len(documents)):
            tried[self.batch] = self.seconds(documents, indexes)
        self.batch = min(tried, key=lambda size: tried[size])

    def close(self) -> None:
        """Disconnect."""
        self._client.close()


def measure(options: Options) -> Result:
    """Import a JSONL file into a new dataset, until its version can be read; insert what that left once more."""
    number = options.pick(20_000, 1_000)
    say(f"record import: {number:,} records")
    with running_platform() as platform, tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        file = write_jsonl(Path(folder) / "records.jsonl", number)
        raw = Raw(platform.mongodb_uri)
        _import(platform, "first", file)
        documents, indexes = raw.copy("first")
        raw.tune(documents, indexes)
        names = (f"bench{count}" for count in itertools.count())
        found = interleave(
            lambda: number / _import(platform, next(names), file),
            lambda: number / raw.seconds(documents, indexes),
            options.pick(5, 1),
            warm_up=0,  # the first import and the choice of the batch size were that
        )
        raw.close()
    note = f"{number:,} records of 8 fields, indexes on {', '.join(indexes)}; raw batches of {raw.batch:,}"
    row = Row(
        "record import", found.ratio(), LIMIT, ours=per_second(found.ours), peer=per_second(found.peer), note=note
    )
    return Result("import", [row], _settings())


def _import(platform: Platform, dataset: str, file: Path) -> float:
    """Seconds from the first byte of the file to the version that has it. Its Parquet is waited for, not counted."""
    data = platform.client.dataset(dataset)
    data.create(key_field=KEY, label_field=LABEL)
    took = seconds(lambda: data.import_file(file, key=KEY, label=LABEL))
    platform.client.datasets.GetManifest(pb.GetManifestRequest(name=data.version_name(), wait=True))
    return took


def _settings() -> list[str]:
    return [
        "ours: CreateImport, WriteImport and WatchImport through Envoy by the SDK, a JSONL file into a new dataset, "
        "until it is committed",
        "peer: pymongo insert_many(ordered=False), w: majority, j: true, of the documents that the import left in the "
        "database, into a new collection with the same indexes on the same server",
    ]
