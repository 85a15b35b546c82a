"""The experiments on a team's cluster: PostgreSQL and one process for each service."""
