"""Where Vigil runs: Postgres roles and migrations, the one-machine stack, and what a cluster needs."""
