"""What the portal says of who has signed in, when a service asks with OpenID Connect."""

from oauth2_provider.oauth2_validators import OAuth2Validator

from accounts_portal.models import Grant

# What tests have the portal say instead, by user
overrides: dict[str, dict] = {}


class ClaimsValidator(OAuth2Validator):
    """OpenID Connect with the user's name, and as groups the services that the user holds."""

    oidc_claim_scope = OAuth2Validator.oidc_claim_scope | {"groups": "groups"}

    def get_additional_claims(self, request) -> dict:
        """Return everything; upstream leaves out what the token's scopes do not cover."""
        services = Grant.objects.in_force().filter(access__user=request.user)
        claims = {
            "preferred_username": request.user.username,
            "name": request.user.get_full_name(),
            "groups": sorted(set(services.values_list("access__role__service__name", flat=True))),
        }
        return claims | overrides.get(request.user.username, {})
