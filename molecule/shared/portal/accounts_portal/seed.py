"""Bring the database to what the site's file says."""

from datetime import timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone
from oauth2_provider.models import AccessToken, Application

from accounts_portal.models import Access, Category, ClientScope, Grant, Role, Service


@transaction.atomic
def seed() -> None:
    """Start over: whatever was granted, applied for or changed since is gone. Users and their sessions stay."""
    Category.objects.all().delete()
    Application.objects.all().delete()
    for service in settings.SITE["services"]:
        add_service(**service)
    for grant in settings.SITE["grants"]:
        add_grant(**grant)
    set_client(**settings.SITE["client"])
    set_sign_in_client(**settings.SITE["sign_in_client"])


@transaction.atomic
def seed_users() -> None:
    """Let those sign in that are named; others stay."""
    for user in settings.SITE["users"]:
        known, new = User.objects.get_or_create(username=user["name"])
        if new or not known.check_password(user["password"]):
            known.set_password(user["password"])
        known.first_name = user.get("full_name", "")
        known.save()


def add_service(category: str, name: str, summary: str = "", hidden: bool = False, disabled: bool = False) -> Service:
    """Make a service with its three roles, or change it."""
    values = {"summary": summary, "hidden": hidden, "disabled": disabled}
    group, _ = Category.objects.get_or_create(name=category)
    service, _ = Service.objects.update_or_create(category=group, name=name, defaults=values)
    for role in (Role.USER, Role.MANAGER, Role.DEPUTY):
        Role.objects.get_or_create(service=service, name=role)
    return service


def add_grant(user: str, category: str, service: str, role: str = Role.USER, days: int = 365, **values) -> Grant:
    """Grant a role for some days from today; `values` are the grant's own fields, and stand before `days`."""
    access, _ = Access.objects.get_or_create(
        role=Role.objects.get(name=role, service__name=service, service__category__name=category),
        user=User.objects.get_or_create(username=user)[0],
    )
    return Grant.objects.create(access=access, **{"expires": timezone.localdate() + timedelta(days=days)} | values)


def set_client(id: str, secret: str, scopes: list[str]) -> None:
    """Have this one client, with this secret and these scopes; tokens of before are gone."""
    AccessToken.objects.all().delete()
    client, _ = Application.objects.update_or_create(
        client_id=id,
        defaults={
            "name": "Dask service",
            "client_type": Application.CLIENT_CONFIDENTIAL,
            "authorization_grant_type": Application.GRANT_CLIENT_CREDENTIALS,
            "client_secret": secret,
            "hash_client_secret": False,
        },
    )
    set_scopes(client, scopes)


def set_sign_in_client(
    id: str, secret: str, scopes: list[str], redirect_uris: list[str], post_logout_redirect_uris: list[str]
) -> None:
    """Have this one client that people sign in for, without being asked whether it may know who they are."""
    client, _ = Application.objects.update_or_create(
        client_id=id,
        defaults={
            "name": "Notebook service",
            "client_type": Application.CLIENT_CONFIDENTIAL,
            "authorization_grant_type": Application.GRANT_AUTHORIZATION_CODE,
            "client_secret": secret,
            "hash_client_secret": False,
            "algorithm": Application.HS256_ALGORITHM,
            "skip_authorization": True,
            "redirect_uris": " ".join(redirect_uris),
            "post_logout_redirect_uris": " ".join(post_logout_redirect_uris),
        },
    )
    set_scopes(client, scopes)


def set_scopes(client: Application, scopes: list[str]) -> None:
    """Let a client have these scopes and no others."""
    client.allowed_scopes.all().delete()
    ClientScope.objects.bulk_create(ClientScope(client=client, scope=scope) for scope in scopes)
