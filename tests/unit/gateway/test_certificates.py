"""The key and certificate of a cluster."""

import contextlib
import ssl
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from slurm_gateway.certificates import new_keypair


def test_both_ends_of_a_connection_know_one_another_by_it(tmp_path):
    """As distributed sets them up: the certificate is its own authority, asked of both ends, and names do not count."""
    cert, key = tmp_path / "dask.crt", tmp_path / "dask.pem"
    for path, content in zip((cert, key), new_keypair("0123456789abcdef"), strict=True):
        path.write_bytes(content)
    ends = []
    for side, purpose in ((True, ssl.Purpose.CLIENT_AUTH), (False, ssl.Purpose.SERVER_AUTH)):
        context = ssl.create_default_context(purpose, cafile=str(cert))
        context.check_hostname, context.verify_mode = False, ssl.CERT_REQUIRED
        context.load_cert_chain(str(cert), str(key))
        ends.append((context, ssl.MemoryBIO(), side))
    (server, to_server, _), (client, to_client, _) = ends
    server = server.wrap_bio(to_server, to_client, server_side=True)
    client = client.wrap_bio(to_client, to_server)
    for _ in range(4):
        for end in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    assert client.getpeercert(True) == server.getpeercert(True)


def test_a_node_whose_clock_is_a_little_late_takes_it():
    certificate = x509.load_pem_x509_certificate(new_keypair("x")[0])
    assert certificate.not_valid_before_utc < datetime.now(UTC) - timedelta(minutes=10)
    assert certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=360)


def test_a_cluster_gets_it(site):
    async def test(site):
        cluster = site.backend.db.create_cluster("alice", {}, {})
        key = serialization.load_pem_private_key(cluster.tls_key, password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)

    site(test)
