"""The examples of now, kept in the database and updated incrementally."""
