"""What people said: turns, votes, corrections -> pairs -> frozen snapshots."""
