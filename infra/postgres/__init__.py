"""Roles, databases and migrations of Vigil, on any PostgreSQL server (16 or newer).

In comes an administrator's connection string and one connection string per role; out come the roles, the EHR
database's schemas and grants, and Vigil's own database at the newest migration. Everything may be run again.
"""
