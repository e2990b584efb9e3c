"""PostgreSQL: the models, and the unit of work over them. The only place with SQL."""
