"""Evaluation: measures of a candidate, for the gate and for the operator."""
