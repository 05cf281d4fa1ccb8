"""TLS for both ports: what the files say, the contexts made from them, and who the other side is.

It knows no setting but the names by which errors tell of the files, and neither of the protocols.
"""

from ingestor.transport.tls.certificates import ALPN_GRPC, ALPN_HTTP, Certificates, State
from ingestor.transport.tls.files import TlsFiles, warnings
from ingestor.transport.tls.listener import listen
from ingestor.transport.tls.peers import peer_names

__all__ = [
    "ALPN_GRPC",
    "ALPN_HTTP",
    "Certificates",
    "State",
    "TlsFiles",
    "listen",
    "peer_names",
    "warnings",
]
