"""Tuning on other hosts: a queue of jobs in the database, and artefacts that travel by fsspec."""
