"""What the operator decides about training data, and what needs their attention."""
