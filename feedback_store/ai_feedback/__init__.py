"""AI feedback: the answers that an AI judge compares, and the pairs that it labelled."""
