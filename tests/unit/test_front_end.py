"""Whom nginx lets in at a path, in the configuration that the role `tls_frontend` writes."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLE = Path(__file__).resolve().parents[2] / "roles/tls_frontend"


def front_end(location: dict[str, Any]) -> str:
    """What is written for one more location."""
    known = {}
    for file in ("defaults/main.yml", "vars/main.yml", "vars/debian.yml"):
        if (ROLE / file).exists():
            known |= yaml.safe_load((ROLE / file).read_text())
    known |= {"ansible_managed": "managed", "site_logo": "", "_tls_frontend_revision": "1", "_tls_frontend_pages": []}
    known |= {"tls_frontend_server_name": "gateway.example.org", "_tls_frontend_too_large": "too large"}
    known |= {"tls_frontend_locations": [location]}
    template = trust_as_template((ROLE / "templates/nginx.conf.j2").read_text())
    text = Templar(DataLoader(), variables=known).template(template)
    (found,) = re.findall(rf"location {re.escape(location['path'])} {{\n(.*?)\n        }}", text, re.DOTALL)
    return found


@pytest.mark.parametrize(
    ("networks", "rules"),
    [
        ({}, []),
        ({"networks": ["192.0.2.7", "2001:db8::/32"]}, ["allow 192.0.2.7;", "allow 2001:db8::/32;", "deny all;"]),
        ({"networks": []}, ["deny all;"]),
        ({"networks": None}, ["deny all;"]),
    ],
    ids=["nothing said", "two", "none", "empty"],
)
@pytest.mark.parametrize(
    "kind", [{"upstream": "http://127.0.0.1:8002"}, {"file": "/srv/health"}], ids=["upstream", "file"]
)
def test_a_path_is_for_the_networks_named_alone_and_for_nobody_where_none_is_named(kind, networks, rules):
    lines = [line.strip() for line in front_end({"path": "= /metrics"} | kind | networks).splitlines()]
    assert [line for line in lines if line.startswith(("allow ", "deny "))] == rules
