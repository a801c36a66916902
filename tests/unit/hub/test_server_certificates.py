"""A notebook server that is a job, its key, its certificate, and what it says to the Hub."""

import asyncio
import json
import ssl
import stat

import pytest
from tornado import web
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from notebook_server import job
from notebook_service import certificates
from notebook_service.certificates import RequestError, ServerAuthority


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    folder = tmp_path_factory.mktemp("authority")
    certificates.make(folder)
    return folder


@pytest.fixture
def server(authority, tmp_path):
    """Key and certificate of a server on node1."""
    request = job.make_key(tmp_path / "server.key")
    (tmp_path / "server.crt").write_text(ServerAuthority(authority).sign(request, ["node1", "notebooks.site.test"]))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    return context


def connect(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    async def both() -> None:
        listening = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=server)
        async with listening:
            port = listening.sockets[0].getsockname()[1]
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
            writer.close()

    asyncio.run(both())


@pytest.mark.parametrize("name", ["node1", "notebooks.site.test"])
def test_who_trusts_the_authority_knows_the_server_by_its_names(authority, server, name):
    connect(server, ssl.create_default_context(cafile=authority / "authority.crt"), name)


def test_by_another_name_or_without_the_authority_nobody_does(authority, server):
    with pytest.raises(ssl.SSLCertVerificationError, match="match"):
        connect(server, ssl.create_default_context(cafile=authority / "authority.crt"), "node2")
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(server, ssl.create_default_context(), "node1")


def test_the_hub_has_a_pair_of_its_own_for_jupyterhubs_client(authority):
    context = ssl.create_default_context(cafile=authority / "authority.crt")
    context.load_cert_chain(authority / "hub.crt", authority / "hub.key")


def test_keys_are_their_owners_alone(authority, tmp_path):
    job.make_key(tmp_path / "server.key")
    for key in (authority / "authority.key", authority / "hub.key", tmp_path / "server.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


@pytest.mark.parametrize("request_text", ["", "x" * 100_000, "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"])
def test_what_is_no_request_is_not_signed(authority, request_text):
    with pytest.raises(RequestError, match="can't be read"):
        ServerAuthority(authority).sign(request_text, ["node1"])


def test_a_request_whose_signature_is_anothers_is_not_signed(authority, tmp_path):
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    good = x509.load_pem_x509_csr(job.make_key(tmp_path / "server.key").encode()).public_bytes(Encoding.DER)
    broken = x509.load_der_x509_csr(good[:-1] + bytes([good[-1] ^ 1])).public_bytes(Encoding.PEM).decode()
    with pytest.raises(RequestError, match="not signed by its key"):
        ServerAuthority(authority).sign(broken, ["node1"])


# -- what the job does --------------------------------------------------------------------------------------------


def test_the_settings_are_taken_away(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text('{"environment": {"A": "1"}, "arguments": []}')
    assert job.take_settings(path)["environment"] == {"A": "1"}
    assert not path.exists()


def test_the_server_listens_with_tls_on_the_port_that_it_has_chosen():
    assert job.service_url("http://0.0.0.0:0/user/alice/", 40000) == "https://0.0.0.0:40000/user/alice/"


@pytest.fixture
def hub():
    """``hub(201, {...})``: the result of a report to a Hub that answers so, and what it was told."""

    def ask(status: int, answer: dict):
        told = []

        class Handler(web.RequestHandler):
            def post(self):
                told.append((self.request.headers["Authorization"], json.loads(self.request.body)))
                self.set_status(status)
                self.finish(json.dumps(answer))

        async def serve():
            socket, port = bind_unused_port()
            server = HTTPServer(web.Application([("/hub/api/notebook-server", Handler)]))
            server.add_sockets([socket])
            try:
                return await asyncio.to_thread(job.report, f"http://127.0.0.1:{port}/hub/api", "token", 40000, "csr")
            finally:
                server.stop()

        return asyncio.run(serve()), told

    return ask


def test_the_hub_is_told_the_port_and_answers_with_the_certificate(hub):
    certificate, told = hub(201, {"certificate": "signed"})
    assert certificate == "signed"
    assert told == [("token token", {"port": 40000, "request": "csr"})]


def test_a_hub_that_does_not_want_the_server_ends_it_with_the_hubs_sentence(hub):
    with pytest.raises(job.ReportError, match=r"No start of a notebook server waits for this one"):
        hub(403, {"message": "No start of a notebook server waits for this one; it may have been stopped."})
