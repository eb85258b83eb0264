"""What the model is shown: modes, examples, the one renderer, and thought apart from answer."""
