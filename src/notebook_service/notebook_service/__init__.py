"""What the notebook service adds to JupyterHub."""
