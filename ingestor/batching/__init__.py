"""Turns a queue of requests into transactions: when to flush is pure policy, the worker acts on it."""

from ingestor.batching.policy import Backoff, FlushPolicy
from ingestor.batching.worker import BatchWorker

__all__ = ["Backoff", "BatchWorker", "FlushPolicy"]
