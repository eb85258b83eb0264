"""Privacy: redaction of personal data, and erasure."""
