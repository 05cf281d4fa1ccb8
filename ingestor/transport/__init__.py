"""The edge: gRPC and HTTP/JSON into the same typed service methods, driven by the descriptor set alone.

Nothing in this package knows what a metric is.
"""
