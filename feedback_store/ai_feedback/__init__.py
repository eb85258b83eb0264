"""What an AI judge compares, and the pairs that it labelled: apart from all that people said."""
