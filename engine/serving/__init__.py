"""How tokens are made, one step at a time."""
