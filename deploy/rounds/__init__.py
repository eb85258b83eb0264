"""The parts of a round of the periodic loop, which `deploy.loop` puts together."""
