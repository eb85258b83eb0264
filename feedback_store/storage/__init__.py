"""The database: its tables, and everything that is written to them."""
