"""What a monitoring system reads, on a port of the loopback."""

from prometheus_client import Counter, Histogram, start_http_server

DECISIONS = Counter(
    "accounts_check_decisions",
    "Decisions of the access check, by outcome and where they came from.",
    ["outcome", "source"],
)
DECISION_SECONDS = Histogram(
    "accounts_check_seconds",
    "How long decisions of the access check took, by where they came from.",
    ["source"],
    buckets=(0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15),
)
PORTAL_ERRORS = Counter(
    "accounts_portal_errors", "Requests to the accounts portal without an answer that could be used, by kind.", ["kind"]
)
PORTAL_REQUESTS = Counter(
    "accounts_portal_requests", "Requests to the accounts portal, by what they ask for.", ["what"]
)
REVOCATIONS = Counter("accounts_revocations", "Clusters of users who lost the service, by what was done.", ["done"])


def serve(port):
    """Serve them on this port of the loopback; returns what stops that."""
    server, thread = start_http_server(port, addr="127.0.0.1")

    def stop():
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
