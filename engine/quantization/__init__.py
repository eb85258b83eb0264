"""How weights are held."""
