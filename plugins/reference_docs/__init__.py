"""Pages of the documentation that are made from what the roles say of themselves, so that they can say nothing else."""
