"""All commands together. It parses, and runs nothing: what was parsed says what is to be run."""

from __future__ import annotations

import argparse

from ingestor import __version__
from ingestor.cli import clients, dead_letters, demo, journal, keys, server
from ingestor.cli.options import CommandParser


def parser() -> argparse.ArgumentParser:
    """What it parses has `run`, which takes the rest and returns the exit code."""
    whole = CommandParser(
        prog="ingestor",
        description="Takes metrics over gRPC and HTTP/JSON and stores them in TimescaleDB or PostgreSQL.",
        allow_abbrev=True,
    )
    whole.add_argument("--version", action="version", version=f"ingestor {__version__}")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    for subject in (server, keys, journal, dead_letters, clients, demo):
        subject.add(commands)
    return whole
