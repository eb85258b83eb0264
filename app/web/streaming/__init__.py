"""Running answers on their way to a client: the relay from threads, events, time limits."""
