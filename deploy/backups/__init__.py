"""Backups: one archive of a home, taken while people chat, and the home that it restores."""
