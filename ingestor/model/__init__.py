"""What a metric is: its columns, its rules and its label sets. Pure: no clock, loop, socket or database."""

from ingestor.model.batch import MetricBatch, Row
from ingestor.model.labels import LabelSet, label_set
from ingestor.model.rules import Limits, Rules

__all__ = ["LabelSet", "Limits", "MetricBatch", "Row", "Rules", "label_set"]
