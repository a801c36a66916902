"""Run the portal: over TLS for everybody, and its control on this host's loopback for tests."""

import argparse
import asyncio
import hashlib
import os
from pathlib import Path

import uvicorn


def main() -> None:
    """Parse the command line, bring the database up to date and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="the site's file")
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104  what a portal does
    parser.add_argument("--port", type=int, default=443)
    parser.add_argument("--control-port", type=int, default=8001)
    parser.add_argument("--certificate", help="PEM, with the private key; without it, plain http")
    arguments = parser.parse_args()

    os.environ["ACCOUNTS_PORTAL_CONFIG"] = str(arguments.config)
    os.environ["DJANGO_SETTINGS_MODULE"] = "accounts_portal.settings"
    prepare_database(arguments.config)
    from django.core.asgi import get_asgi_application

    from accounts_portal.faults import faults

    django = get_asgi_application()
    options = {"lifespan": "off", "log_level": "warning", "server_header": False}
    public = uvicorn.Config(
        faults.middleware(except_control(django)),
        host=arguments.host,
        port=arguments.port,
        ssl_certfile=arguments.certificate,
        **options,
    )
    control = uvicorn.Config(only_control(django), host="127.0.0.1", port=arguments.control_port, **options)

    async def serve() -> None:
        await asyncio.gather(*(uvicorn.Server(config).serve() for config in (public, control)))

    asyncio.run(serve())


def prepare_database(config: Path) -> None:
    """Start over when the site's file or the portal itself has changed; else what was granted since lives on."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    django.setup()
    database = Path(settings.SITE["database"])
    filled = database.with_suffix(".filled")
    sources = [config, *sorted(Path(__file__).parent.glob("*.py"))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    if database.exists() and filled.exists() and filled.read_text() == digest:
        return
    for path in (filled, *database.parent.glob(f"{database.name}*")):
        path.unlink(missing_ok=True)
    call_command("migrate", run_syncdb=True, verbosity=0)
    from accounts_portal.seed import seed, seed_users

    seed_users()
    seed()
    filled.write_text(digest)


def except_control(app):
    """Keep everybody from the control."""

    async def wrapped(scope, receive, send):
        if scope["type"] == "http" and scope["path"].startswith("/control/"):
            scope = scope | {"path": "/nothing-here/"}
        return await app(scope, receive, send)

    return wrapped


def only_control(app):
    """Serve nothing but the control."""

    async def wrapped(scope, receive, send):
        if scope["type"] == "http" and not scope["path"].startswith("/control/"):
            scope = scope | {"path": "/nothing-here/"}
        return await app(scope, receive, send)

    return wrapped


if __name__ == "__main__":
    main()
