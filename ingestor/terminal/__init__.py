"""`ingestor top` and `ingestor tail`: what the page shows, at a terminal.

Clients of the public HTTP API, which know nothing of the server.
"""
