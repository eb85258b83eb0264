"""Evaluation: what is measured of a candidate, for the gate and for the operator to read."""
