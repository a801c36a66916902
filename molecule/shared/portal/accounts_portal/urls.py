"""The portal's addresses. /control/ is not reached from outside: see server.py."""

from django.contrib.auth import views as auth
from django.urls import include, path
from django.views.generic import RedirectView
from oauth2_provider import views as oauth

from accounts_portal import pages
from accounts_portal.api import UserGrants

# Under the names by which the provider finds its own addresses
provider = [
    path("token/", oauth.TokenView.as_view(), name="token"),
    path("authorize/", oauth.AuthorizationView.as_view(), name="authorize"),
    path("userinfo/", oauth.UserInfoView.as_view(), name="user-info"),
    path("logout/", oauth.RPInitiatedLogoutView.as_view(template_name="logout.html"), name="rp-initiated-logout"),
    path(
        ".well-known/openid-configuration",
        oauth.ConnectDiscoveryInfoView.as_view(),
        name="oidc-connect-discovery-info",
    ),
    path(".well-known/jwks.json", oauth.JwksInfoView.as_view(), name="jwks-info"),
]
urlpatterns = [
    path("oauth/", include((provider, "oauth2_provider"))),
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
