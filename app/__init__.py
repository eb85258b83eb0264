"""What people touch: browser, HTTP API, command line."""
