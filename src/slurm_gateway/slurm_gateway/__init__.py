"""A Dask Gateway whose clusters are SLURM jobs of the users who ask for them."""
