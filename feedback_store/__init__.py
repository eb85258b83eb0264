"""The feedback store: turns, votes and corrections -> training examples -> frozen snapshots."""
