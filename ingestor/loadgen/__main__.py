"""`python -m ingestor.loadgen`: the command, for wherever the package is installed.

It only starts it.
"""

import sys

from ingestor.loadgen.command import main

if __name__ == "__main__":
    sys.exit(main())
