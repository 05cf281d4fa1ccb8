"""A load generator that knows what it sent: an independent client of the published API.

It shares no code with the server, so that neither hides the other's mistakes.
"""

from ingestor.loadgen.brake import Brake
from ingestor.loadgen.plan import LoadPlan
from ingestor.loadgen.report import LoadReport
from ingestor.loadgen.runner import run
from ingestor.loadgen.tally import Progress
from ingestor.loadgen.verify import Verification, verify

__all__ = ["Brake", "LoadPlan", "LoadReport", "Progress", "Verification", "run", "verify"]
