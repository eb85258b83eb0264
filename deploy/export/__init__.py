"""Export: a release in the formats of other software."""
