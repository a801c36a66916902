"""Tell whether this Python keeps its TLS connections apart, as Dask needs it.

OpenSSL keeps a queue of errors for each thread. With some combinations of Python and OpenSSL (Debian 13's Python 3.13
with OpenSSL 3.5 is one) the error of a connection that the other side has closed stays in that queue, and the next read
of another, healthy connection of the same thread fails with it. A Dask client then loses its scheduler while workers
start: "FutureCancelledError ... scheduler-connection-lost", in about every second run.

    python -m dask_user_tools.tls      exits with 1 and a sentence when this Python has the fault
"""

import socket
import ssl
import sys
from contextlib import suppress


def connection() -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    """Return both ends of a TLS connection within this process."""
    contexts = []
    for protocol in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER):
        context = ssl.SSLContext(protocol)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        # No certificates are needed to find out how errors are handed on
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("aNULL:@SECLEVEL=0")
        contexts.append(context)
    ends = []
    for context, raw, server_side in zip(contexts, socket.socketpair(), (False, True), strict=True):
        raw.setblocking(False)
        ends.append(context.wrap_socket(raw, server_side=server_side, do_handshake_on_connect=False))
    shaking = list(ends)
    while shaking:
        for end in list(shaking):
            try:
                end.do_handshake()
                shaking.remove(end)
            except ssl.SSLWantReadError:
                continue
    return ends[0], ends[1]


def fault() -> Exception | None:
    """Return what a healthy connection fails with after another one was closed by its other side; None is right."""
    healthy, healthy_peer = connection()
    closed, closed_peer = connection()
    closed_peer.close()
    with suppress(OSError):  # the error that has to stay here
        for _ in range(3):
            closed.send(b"x")
    try:
        healthy.recv(1)
    except ssl.SSLWantReadError:
        return None  # there is nothing to read: the truth
    except OSError as error:
        return error
    finally:
        for end in (healthy, healthy_peer, closed):
            end.close()
    return OSError("it read what nobody has sent")


def sentence(error: Exception) -> str:
    """Say what a fault means, and what to do."""
    version = ".".join(str(number) for number in sys.version_info[:3])
    return (
        f"This Python ({version} with {ssl.OPENSSL_VERSION}) hands one TLS connection's error to another, {error!r}, "
        "and Dask clients would lose their schedulers. Make the environment with another Python: that of Debian 12 "
        "(3.11 with OpenSSL 3.0) is known to be right."
    )


def main() -> int:
    """Say what is wrong with this Python, if anything is."""
    error = fault()
    if error is None:
        return 0
    print(sentence(error))
    return 1


if __name__ == "__main__":
    sys.exit(main())
