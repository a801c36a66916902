"""Runs at every start of Python (dask_user_tools.pth) and waits for the first import of dask_gateway and its client.

It must cost next to nothing in the many Pythons that never see a gateway, so it imports nothing but sys.
"""

import sys


class DaskGatewayImport:
    """A finder that Python asks before it imports a module; it leaves finding it to the others."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        """Look at the user's token when dask_gateway is about to be imported, and at its client once it is there."""
        if name == "dask_gateway":
            try:
                from dask_user_tools import token_file

                token_file.warn_of_readable()
            except Exception as error:  # whatever is wrong here, the import goes on
                sys.stderr.write(f"dask_user_tools: the token's file could not be looked at: {error}\n")
        elif name == "dask_gateway.client":
            sys.meta_path.remove(cls)
            try:
                return _and_then(name, path)
            except Exception as error:
                sys.stderr.write(f"dask_user_tools: refusals will be shown with their tracebacks: {error}\n")
        return None


def _and_then(name, path):
    """Find the client's module, such that it is adapted as soon as it has been loaded."""
    from importlib.machinery import PathFinder

    spec = PathFinder.find_spec(name, path)
    load = spec.loader.exec_module

    def exec_module(module):
        load(module)
        try:
            from dask_user_tools import refusals

            refusals.show_as_sentences(module)
        except Exception as error:
            sys.stderr.write(f"dask_user_tools: refusals will be shown with their tracebacks: {error}\n")

    spec.loader.exec_module = exec_module
    return spec


sys.meta_path.insert(0, DaskGatewayImport)
