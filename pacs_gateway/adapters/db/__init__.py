"""PostgreSQL: the models, and the unit of work over them. The only place with SQL."""

from pacs_gateway.adapters.db.database import PostgresDatabase

__all__ = ["PostgresDatabase"]
