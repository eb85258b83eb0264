"""Personal data: one person's own examples and prompts, and a copy of all their data."""
