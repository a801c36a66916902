"""Tools for people who compute with the Dask Gateway service.

Every start of Python imports this package (dask_user_tools.pth), so nothing happens here.
"""
