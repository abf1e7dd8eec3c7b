"""Runs in MLflow's own environment: logs metrics by MLflow's client as told, line by line, and answers with seconds.

In: {"op": "single" | "batch", "clients": 1, "calls": 20} (calls of each client); out: {"seconds": 0.5}.
"""
# Its packages are not in our environment.
# mypy: ignore-errors

import json
import sys
import threading
import time

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

BATCH = 1000


def main() -> None:
    client = MlflowClient(tracking_uri=sys.argv[1])
    experiment = client.create_experiment("bench")
    runs = [client.create_run(experiment).info.run_id for _ in range(8)]
    step = 0
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        send = single if asked["op"] == "single" else batch
        calls, first = asked["calls"], step
        step += calls * BATCH
        work = [
            threading.Thread(target=many, args=(send, client, run, first, calls)) for run in runs[: asked["clients"]]
        ]
        began = time.perf_counter()
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
        print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)


def many(send, client: MlflowClient, run: str, first: int, calls: int) -> None:
    for number in range(calls):
        send(client, run, first + number * BATCH)


def single(client: MlflowClient, run: str, step: int) -> None:
    client.log_metric(run, "loss", 0.5, step=step)


def batch(client: MlflowClient, run: str, step: int) -> None:
    now = int(time.time() * 1000)
    client.log_batch(run, metrics=[Metric("loss", 0.5, now, step + number) for number in range(BATCH)])


main()
