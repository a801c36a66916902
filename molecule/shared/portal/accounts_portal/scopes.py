"""Which scopes a client may ask for; another one is answered 400 invalid_scope."""

from oauth2_provider.scopes import SettingsScopes


class ClientScopes(SettingsScopes):
    """Scopes by client."""

    def get_available_scopes(self, application=None, request=None, *args, **kwargs) -> list[str]:
        """Return the client's own, or all where no client is meant."""
        if application is None:
            return super().get_available_scopes(application, request)
        return list(application.allowed_scopes.values_list("scope", flat=True))

    def get_default_scopes(self, application=None, request=None, *args, **kwargs) -> list[str]:
        """Return none: a client says what it asks for."""
        return []
