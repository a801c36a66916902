"""Runs at every start of Python (dask_user_tools.pth) and waits for the first import of dask_gateway.

It must cost next to nothing in the many Pythons that never see a gateway, so it imports nothing but sys.
"""

import sys


class DaskGatewayImport:
    """A finder that finds nothing: Python asks it before it imports a module."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        """Look at the user's token when dask_gateway is about to be imported; finding it is left to the others."""
        if name == "dask_gateway":
            sys.meta_path.remove(cls)
            try:
                from dask_user_tools import token_file

                token_file.warn_of_readable()
            except Exception as error:  # whatever is wrong here, the import goes on
                sys.stderr.write(f"dask_user_tools: the token's file could not be looked at: {error}\n")


sys.meta_path.insert(0, DaskGatewayImport)
