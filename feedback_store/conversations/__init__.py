"""A person's conversations, to be listed, searched and read."""
