"""Answers written or labelled without people: alternatives that wait to be compared, and the pairs
that an AI judge labelled."""
