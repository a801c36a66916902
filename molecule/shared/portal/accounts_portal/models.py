"""The portal's data: Category → Service → Role → Access → Grant, and the requests that lead to a grant."""

from django.contrib.auth.models import User
from django.db import models
from django.db.models import Q
from django.utils import timezone
from oauth2_provider.models import Application


class Category(models.Model):
    """What services are sorted by."""

    name = models.CharField(max_length=200, unique=True)

    def __str__(self) -> str:
        return self.name


class Service(models.Model):
    """Something that people may be granted."""

    category = models.ForeignKey(Category, models.CASCADE, related_name="services")
    name = models.CharField(max_length=200)
    summary = models.TextField(blank=True)
    hidden = models.BooleanField(default=False)
    disabled = models.BooleanField(default=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["category", "name"], name="unique_in_category")]

    def __str__(self) -> str:
        return f"{self.category}/{self.name}"


class Role(models.Model):
    """What somebody is for a service."""

    USER, MANAGER, DEPUTY = "USER", "MANAGER", "DEPUTY"
    MANAGERS = (MANAGER, DEPUTY)

    service = models.ForeignKey(Service, models.CASCADE, related_name="roles")
    name = models.CharField(max_length=50)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["service", "name"], name="unique_in_service")]

    def __str__(self) -> str:
        return f"{self.service} {self.name}"


class Access(models.Model):
    """A user in a role, granted or not."""

    role = models.ForeignKey(Role, models.CASCADE, related_name="accesses")
    user = models.ForeignKey(User, models.CASCADE, related_name="accesses")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["role", "user"], name="unique_access")]

    def __str__(self) -> str:
        return f"{self.user} {self.role}"


class GrantQuerySet(models.QuerySet):
    """Grants that fit."""

    def listed(self):
        """Those that the portal lists: neither revoked nor expired. A superseded one is listed."""
        return self.filter(revoked=False, expires__gte=timezone.localdate())

    def in_force(self):
        """Those that count."""
        return self.listed().filter(superseded_by=None)


class Grant(models.Model):
    """Access for a time."""

    access = models.ForeignKey(Access, models.CASCADE, related_name="grants")
    granted_at = models.DateTimeField(default=timezone.now)
    # Access runs to the end of this day
    expires = models.DateField()
    revoked = models.BooleanField(default=False)
    revoked_at = models.DateTimeField(null=True)
    user_reason = models.TextField(blank=True)
    superseded_by = models.ForeignKey("self", models.SET_NULL, null=True, related_name="supersedes")

    objects = GrantQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.access} until {self.expires}"

    def revoke(self, reason: str = "") -> None:
        """End it now."""
        self.revoked, self.revoked_at, self.user_reason = True, timezone.now(), reason
        self.save()


class RequestQuerySet(models.QuerySet):
    """Requests that fit."""

    def waiting_for(self, manager: User):
        """Those that this manager can decide."""
        services = Service.objects.filter(
            roles__name__in=Role.MANAGERS,
            roles__accesses__user=manager,
            roles__accesses__grants__in=Grant.objects.in_force(),
        )
        return self.filter(Q(access__role__service__in=services), decided_at=None)


class Request(models.Model):
    """Somebody has applied."""

    access = models.ForeignKey(Access, models.CASCADE, related_name="requests")
    requested_at = models.DateTimeField(default=timezone.now)
    reason = models.TextField(blank=True)
    decided_at = models.DateTimeField(null=True)
    grant = models.OneToOneField(Grant, models.SET_NULL, null=True)

    objects = RequestQuerySet.as_manager()

    def __str__(self) -> str:
        return f"request of {self.access}"

    def decide(self, grant: Grant | None) -> None:
        """Close it, granted or not."""
        self.decided_at, self.grant = timezone.now(), grant
        self.save()


class ClientScope(models.Model):
    """A scope that a client may have."""

    client = models.ForeignKey(Application, models.CASCADE, related_name="allowed_scopes")
    scope = models.CharField(max_length=200)

    def __str__(self) -> str:
        return f"{self.client}: {self.scope}"
