"""What belongs to one person: their own examples and prompts, and a copy of all their data."""
