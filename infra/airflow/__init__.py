"""Airflow from outside: a client of its REST API, and `vigil backfill`, which plans, runs and compares past days."""
