"""What tests do to the portal. In JSON below /control/, on the host's loopback only; see server.py.

==========================  ========================================================================================
``POST   reset/``           back to the site's file; no faults, counts at 0
``GET    requests/``        how many there were: ``{"token": 1, "grants": 4, "users": {"alice": 4}}``
``DELETE requests/``        count from 0
``PUT    faults/``          ``{"at": "grants", "kind": "slow", …}``; see faults.py
``DELETE faults/``          behave
``POST   services/``        ``{"category": …, "name": …}``, and what else a service has
``POST   grants/``          ``{"user": …, "category": …, "service": …}``, perhaps ``role``, ``expires``, ``granted_at``,
                            ``supersede: true`` for those of before; answers the grant's number
``PATCH  grants/``          change those of ``{"user": …, "category": …, "service": …, "role": …}`` (as far as given):
                            ``revoked`` (with ``user_reason``), ``expires``
``DELETE grants/``          forget them, as if they had never been
``DELETE tokens/``          every token that was issued is refused from now on
``PUT    client/``          ``{"id": …, "secret": …, "scopes": […]}``, and perhaps ``token_lifetime`` in seconds
``PUT    claims/``          ``{"user": …, "claims": {…}}``: what is said of a user to services that sign people in
==========================  ========================================================================================
"""

import json
from datetime import date, datetime

from django.core.exceptions import ObjectDoesNotExist
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from oauth2_provider.models import AccessToken
from oauth2_provider.settings import oauth2_settings

from accounts_portal import seed
from accounts_portal.claims import overrides
from accounts_portal.faults import faults
from accounts_portal.models import Grant

SELECTORS = {
    "user": "access__user__username",
    "category": "access__role__service__category__name",
    "service": "access__role__service__name",
    "role": "access__role__name",
}


def control(**actions):
    """Make a view of one action for each method, called with what the request's JSON holds."""

    @csrf_exempt
    def view(request: HttpRequest) -> JsonResponse:
        action = actions.get(request.method)
        if action is None:
            return JsonResponse({"error": f"one of {', '.join(actions)}"}, status=405)
        try:
            return JsonResponse(action(**json.loads(request.body or "{}")) or {})
        except (ObjectDoesNotExist, KeyError, TypeError, ValueError) as error:
            return JsonResponse({"error": f"{type(error).__name__}: {error}"}, status=400)

    return view


def reset() -> None:
    """Bring everything back to the site's file."""
    faults.clear()
    faults.counts.clear()
    overrides.clear()
    oauth2_settings.reload()
    seed.seed()


def add_grant(*, supersede: bool = False, **values) -> dict:
    """Grant; an ISO text is taken for a date or a time."""
    if "expires" in values:
        values["expires"] = date.fromisoformat(values["expires"])
    if "granted_at" in values:
        values["granted_at"] = datetime.fromisoformat(values["granted_at"])
    grant = seed.add_grant(**values)
    if supersede:
        grant.access.grants.exclude(pk=grant.pk).filter(superseded_by=None).update(superseded_by=grant)
    return {"id": grant.pk}


def change_grants(*, revoked: bool | None = None, user_reason: str = "", expires: str | None = None, **which) -> dict:
    """Revoke grants, take that back, or let them expire."""
    grants = selected(which)
    if revoked is not None:
        at = timezone.now() if revoked else None
        grants.update(revoked=revoked, revoked_at=at, user_reason=user_reason)
    if expires is not None:
        grants.update(expires=date.fromisoformat(expires))
    return {"count": grants.count()}


def delete_grants(**which) -> dict:
    """Forget grants."""
    return {"count": selected(which).delete()[0]}


def selected(which: dict[str, str]):
    """Find the grants that are meant."""
    return Grant.objects.filter(**{SELECTORS[name]: value for name, value in which.items()})


def set_client(*, token_lifetime: int | None = None, **client) -> None:
    """Change the client, or how long its tokens live."""
    if client:
        seed.set_client(**client)
    if token_lifetime is not None:
        oauth2_settings.ACCESS_TOKEN_EXPIRE_SECONDS = token_lifetime


def set_claims(*, user: str, claims: dict) -> None:
    """Say this of a user, whatever is true."""
    overrides[user] = claims


def add_service(**service) -> None:
    """Add a service."""
    seed.add_service(**service)


def forget_tokens() -> None:
    """Refuse every token of before."""
    AccessToken.objects.all().delete()


urlpatterns = [
    path("reset/", control(POST=reset)),
    path("requests/", control(GET=faults.counted, DELETE=faults.counts.clear)),
    path("faults/", control(PUT=faults.set, DELETE=faults.clear)),
    path("services/", control(POST=add_service)),
    path("grants/", control(POST=add_grant, PATCH=change_grants, DELETE=delete_grants)),
    path("tokens/", control(DELETE=forget_tokens)),
    path("client/", control(PUT=set_client)),
    path("claims/", control(PUT=set_claims)),
]
