"""The documents that people put into collections, and the search of passages in them."""
