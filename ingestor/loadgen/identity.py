"""Who the load generator is to the server, and how it knows the server: TLS, a client certificate, a key.

Never shown is the key: a report that holds the plan says only that there was one.
"""

from __future__ import annotations

import ssl

from ingestor.loadgen.plan import SYSTEM_CAS, LoadPlan


def client_context(plan: LoadPlan, *protocols: str) -> ssl.SSLContext | None:
    """What connections are made with, offering these protocols; None without TLS. Raises OSError for files that
    can't be used."""
    if plan.tls_ca is None:
        return None
    context = ssl.create_default_context(cafile=None if plan.tls_ca == SYSTEM_CAS else plan.tls_ca)
    if plan.tls_cert is not None:
        context.load_cert_chain(plan.tls_cert, plan.tls_key)
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


def key_headers(plan: LoadPlan) -> dict[str, str]:
    """What each request says of its sender."""
    return {} if plan.key is None else {"authorization": f"Bearer {plan.key.get_secret_value()}"}
