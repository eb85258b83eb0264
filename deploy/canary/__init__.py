"""The canary: a share of conversations tries a candidate, and people's verdicts decide about it."""
