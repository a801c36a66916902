"""The pages that people use: see one's services, apply for one, and grant it."""

from datetime import timedelta

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST

from accounts_portal.models import Access, Category, Grant, Request, Role, Service


class Application(forms.Form):
    """What somebody who applies is asked."""

    reason = forms.CharField(label="What will you use it for?", max_length=1000, widget=forms.Textarea({"rows": 4}))


class Decision(forms.Form):
    """What a manager who grants is asked."""

    expires = forms.DateField(label="Until the end of", widget=forms.DateInput({"type": "date"}))


def site(request: HttpRequest) -> dict[str, str]:
    """Give every page the site's name and where help is found."""
    return {"site_name": settings.SITE["name"], "site_support": settings.SITE["support"]}


@login_required
def services(request: HttpRequest, category: str | None = None) -> HttpResponse:
    """List the services, and the user's own first."""
    visible = Service.objects.filter(hidden=False, disabled=False).order_by("name")
    categories = Category.objects.prefetch_related(Prefetch("services", visible)).order_by("name")
    if category is not None:
        categories = categories.filter(name=category)
        get_object_or_404(categories)
    own = Grant.objects.in_force().filter(access__user=request.user).select_related("access__role__service__category")
    waiting = Request.objects.waiting_for(request.user).select_related("access__role__service", "access__user")
    return render(request, "services.html", {"categories": categories, "own": own, "waiting": waiting})


@login_required
def service(request: HttpRequest, category: str, name: str) -> HttpResponse:
    """Show one service to its user, to who may apply, and to its manager."""
    found = get_object_or_404(Service.objects.select_related("category"), category__name=category, name=name)
    mine = {"access__role__service": found, "access__user": request.user}
    applied = Request.objects.filter(**mine, decided_at=None).first()
    form = Application(request.POST or None)
    if request.method == "POST" and form.is_valid() and not (applied or found.disabled):
        role = get_object_or_404(Role, service=found, name=Role.USER)
        access, _ = Access.objects.get_or_create(role=role, user=request.user)
        Request.objects.create(access=access, reason=form.cleaned_data["reason"])
        messages.success(request, "Your application was sent to the service's managers.")
        return redirect("service", category, name)
    in_a_year = Decision(initial={"expires": timezone.localdate() + timedelta(days=365)})
    waiting = Request.objects.waiting_for(request.user).filter(access__role__service=found)
    context = {
        "service": found,
        "grants": Grant.objects.in_force().filter(**mine).select_related("access__role"),
        "applied": applied,
        "application": form,
        "decision": in_a_year,
        "waiting": waiting.select_related("access__user"),
    }
    return render(request, "service.html", context)


@login_required
@require_POST
def decide(request: HttpRequest, number: int) -> HttpResponse:
    """Grant or decline a request; its service's managers may."""
    found = get_object_or_404(Request, pk=number)
    if not Request.objects.waiting_for(request.user).filter(pk=number).exists():
        raise PermissionDenied
    access, grant = found.access, None
    if "grant" in request.POST:
        form = Decision(request.POST)
        if not form.is_valid():
            messages.error(request, "Give a date until whose end the service is granted.")
            return redirect("service", access.role.service.category.name, access.role.service.name)
        grant = Grant.objects.create(access=access, expires=form.cleaned_data["expires"])
        access.grants.exclude(pk=grant.pk).filter(superseded_by=None).update(superseded_by=grant)
    found.decide(grant)
    messages.success(request, f"{access.user} {'was granted' if grant else 'was declined'} {access.role.service}.")
    return redirect("service", access.role.service.category.name, access.role.service.name)
