"""Which adapter is live: registry, gate, release, the periodic loop."""
