"""Curation: decisions about training data, and votes that need the operator's attention."""
