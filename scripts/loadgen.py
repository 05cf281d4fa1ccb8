"""Sends load to a running ingestor and reports, or proves with --verify, what became of it.

It is only the entry to `ingestor.loadgen`, which shares no code with the server; see --help.
"""

import sys

from ingestor.loadgen.command import main

if __name__ == "__main__":
    sys.exit(main())
