"""What a metric is: its columns, its rules and its label sets. Pure: no clock, loop, socket or database."""

from ingestor.model.batch import MetricBatch, Row
from ingestor.model.delivery import (
    Ack,
    DeadRow,
    Delivery,
    Entry,
    Outcome,
    Placed,
    Request,
    RequestKey,
    StoredRequest,
    Taken,
)
from ingestor.model.labels import LabelSet, label_set
from ingestor.model.rules import Limits, Rules

__all__ = [
    "Ack",
    "DeadRow",
    "Delivery",
    "Entry",
    "LabelSet",
    "Limits",
    "MetricBatch",
    "Outcome",
    "Placed",
    "Request",
    "RequestKey",
    "Row",
    "Rules",
    "StoredRequest",
    "Taken",
    "label_set",
]
