"""Runs a plan from first connection to report: the function behind the command, and behind `ingestor demo`.

It reads no command line and prints nothing.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from ingestor.loadgen.bodies import JsonBodies, ProtobufBodies
from ingestor.loadgen.brake import Brake
from ingestor.loadgen.grpc_client import GrpcClient
from ingestor.loadgen.http_client import HttpClient
from ingestor.loadgen.plan import LoadPlan
from ingestor.loadgen.report import LoadReport, report_of
from ingestor.loadgen.rows import Rows
from ingestor.loadgen.tally import Progress
from ingestor.loadgen.terms import Terms
from ingestor.loadgen.work import Client, Work


async def run(
    plan: LoadPlan, *, progress: Callable[[Progress], None] | None = None, brake: Brake | None = None
) -> LoadReport:
    """Sends what the plan says; `progress` is called a few times a second, pulling `brake` ends it early."""
    started_us = time.time_ns() // 1000
    clients = _clients(plan, Rows(plan, started_us))
    work = Work(plan, brake or Brake())
    try:
        await work.do(clients, progress)
    finally:
        for client in clients:
            await client.close()
    return report_of(
        plan,
        work.tally,
        started_us=started_us,
        elapsed_s=work.ended_s,
        interrupted=work.brake.pulled,
    )


def _clients(plan: LoadPlan, rows: Rows) -> list[Client]:
    terms = Terms(plan)
    protobuf, text = ProtobufBodies(rows, terms), JsonBodies(rows, terms)
    protocols = itertools.islice(itertools.cycle(plan.protocols), plan.connections)
    return [
        GrpcClient(plan, protobuf) if protocol == "grpc" else HttpClient(plan, text) for protocol in protocols
    ]
