"""What the service refuses is a sentence for the user: notebooks show it without the calls that led there."""


def show_as_sentences(client) -> None:
    """Mark what the gateway answers, so that IPython shows the sentence alone.

    Parameters
    ----------
    client : module
        ``dask_gateway.client``. Its ``Gateway._request`` raises ValueError, GatewayClusterError and
        GatewayServerError with the text that the gateway sent, and other errors for everything else.

    IPython shows an exception that has ``_render_traceback_`` by what that returns (InteractiveShell.showtraceback).
    For everybody else, programs and debuggers among them, the exception stays as it is.
    """
    request = client.Gateway._request

    async def _request(self, *args, **kwargs):
        try:
            return await request(self, *args, **kwargs)
        except (ValueError, client.GatewayClusterError, client.GatewayServerError) as error:
            shown = [f"{type(error).__name__}: {error}"]
            error._render_traceback_ = lambda: shown
            raise

    client.Gateway._request = _request
