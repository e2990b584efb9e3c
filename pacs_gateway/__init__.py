"""Uploads, studies, registry, health: the only client of Orthanc and the owner of the database."""
