"""What keeps a person's data out of training."""
