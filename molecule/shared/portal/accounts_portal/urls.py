"""The portal's addresses. /control/ is not reached from outside: see server.py."""

from django.contrib.auth import views as auth
from django.urls import include, path
from django.views.generic import RedirectView
from oauth2_provider.views import TokenView

from accounts_portal import pages
from accounts_portal.api import UserGrants

urlpatterns = [
    path("oauth/token/", TokenView.as_view(), name="token"),
    path("api/v1/users/<str:username>/grants/", UserGrants.as_view(), name="grants"),
    path("", RedirectView.as_view(pattern_name="services")),
    path("accounts/login/", auth.LoginView.as_view(template_name="login.html"), name="login"),
    path("accounts/logout/", auth.LogoutView.as_view(), name="logout"),
    path("services/", pages.services, name="services"),
    path("services/<str:category>/", pages.services, name="category"),
    path("services/<str:category>/<str:name>/", pages.service, name="service"),
    path("requests/<int:number>/", pages.decide, name="decide"),
    path("control/", include("accounts_portal.control")),
]
