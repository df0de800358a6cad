"""Steps from each schema of the catalogue to the next (Alembic). They never change once they are released."""
