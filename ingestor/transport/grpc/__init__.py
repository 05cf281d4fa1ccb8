"""The gRPC side, on grpclib 0.4.9, whose gaps are mended here and nowhere else."""

from ingestor.transport.grpc.health import HealthService
from ingestor.transport.grpc.reflection import Reflection
from ingestor.transport.grpc.server import GrpcServer

__all__ = ["GrpcServer", "HealthService", "Reflection"]
