"""The question that services ask: which grants does a user hold?"""

import django_filters
from oauth2_provider.contrib.rest_framework import TokenHasScope
from rest_framework import generics, serializers
from rest_framework.reverse import reverse

from accounts_portal.models import Category, Grant, Role, Service


class CategorySerializer(serializers.ModelSerializer):
    """A category as it stands in a service."""

    url = serializers.SerializerMethodField()

    class Meta:
        model = Category
        fields = ["id", "url", "name"]

    def get_url(self, category: Category) -> str:
        """Name the category's own address."""
        return reverse("services", request=self.context["request"]) + f"{category.name}/"


class ServiceSerializer(serializers.ModelSerializer):
    """A service as it stands in a grant."""

    url = serializers.SerializerMethodField()
    category = CategorySerializer()

    class Meta:
        model = Service
        fields = ["id", "url", "name", "summary", "hidden", "category"]

    def get_url(self, service: Service) -> str:
        """Name the service's own address."""
        return reverse("service", [service.category.name, service.name], request=self.context["request"])


class RoleSerializer(serializers.ModelSerializer):
    """A role as it stands in a grant."""

    class Meta:
        model = Role
        fields = ["id", "name"]


class GrantSerializer(serializers.ModelSerializer):
    """A grant. That it is superseded can't be seen in it."""

    service = ServiceSerializer(source="access.role.service")
    role = RoleSerializer(source="access.role")

    class Meta:
        model = Grant
        fields = ["id", "service", "role", "granted_at", "expires", "revoked", "revoked_at", "user_reason"]


class GrantFilter(django_filters.FilterSet):
    """What may be asked for. A value that no grant has ever had is an error, not an empty answer."""

    category = django_filters.AllValuesFilter(field_name="access__role__service__category__name")
    service = django_filters.AllValuesFilter(field_name="access__role__service__name")
    role = django_filters.AllValuesFilter(field_name="access__role__name")


class UserGrants(generics.ListAPIView):
    """A user's grants; none for a user who is not known."""

    permission_classes = [TokenHasScope]
    required_scopes = ["jasmin.services.userservices.all:read"]
    serializer_class = GrantSerializer
    filterset_class = GrantFilter
    pagination_class = None

    def get_queryset(self):
        """Select the grants, with what they are shown with."""
        return (
            Grant.objects.listed()
            .filter(access__user__username=self.kwargs["username"])
            .select_related("access__role__service__category")
            .order_by("id")
        )
