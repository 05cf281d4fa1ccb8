"""A metrics ingestor: gRPC and HTTP/JSON in, COPY into TimescaleDB or PostgreSQL out."""

__version__ = "0.1.0"
