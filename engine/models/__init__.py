"""Models: their names, files and architectures, and the decoder that computes them."""
