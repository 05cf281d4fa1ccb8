"""IngestorService: checks metrics, and hands those that keep the rules to the queue, whole or not at all.

The one implementation of the API, whatever the protocol. It acknowledges what the queue has made as safe as the
request asks for; it never stores anything itself.
"""

from ingestor.service.rpcs import IngestorService
from ingestor.service.series_guard import SeriesGuard
from ingestor.service.taking import Earlier, Requests
from ingestor.service.terms import AckPolicy
from ingestor.service.waiting import Queue

__all__ = ["AckPolicy", "Earlier", "IngestorService", "Queue", "Requests", "SeriesGuard"]
