"""Pairs in, adapter bundle out; and the evidence by which a bundle is judged."""
