"""Everything that can be set, from the environment (INGESTOR_*), `.env` and flags of the same names.

A setting that can't be right is refused here, before anything is started; nothing is read elsewhere. For who sets
them, settings are one flat list: the groups in which they are declared here show nowhere.
"""

from ingestor.settings.addresses import EMBEDDED
from ingestor.settings.forms import parse_duration
from ingestor.settings.loading import alone, load, misspelt, unknown_variables
from ingestor.settings.settings import PREFIX, Settings

__all__ = [
    "EMBEDDED",
    "PREFIX",
    "Settings",
    "alone",
    "load",
    "misspelt",
    "parse_duration",
    "unknown_variables",
]
