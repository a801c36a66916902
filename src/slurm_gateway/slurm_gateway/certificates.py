"""The key and certificate of a cluster, with which its client, scheduler and workers know one another."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LIFE = timedelta(days=365)
CLOCKS = timedelta(hours=1)  # a node whose clock is late by less takes a new certificate for a valid one


def new_keypair(sni):
    """A new key and the certificate that it has signed for itself, as dask-gateway's own function makes them.

    That one (`dask_gateway_server.tls.new_keypair`) makes an RSA key: 8 to 80 ms of processor time in the gateway's
    event loop for each cluster. A key of the curve P-256 takes less than one, and so do its handshakes.

    Parameters
    ----------
    sni : str
        Name of the server, beside ``dask-internal``.

    Returns
    -------
    (bytes, bytes)
        Certificate and private key, both PEM.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dask-internal")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS)
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(sni), x509.DNSName("dask-internal")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
