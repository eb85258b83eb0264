"""The migrations of the accounts' tables."""
