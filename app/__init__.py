"""The user interfaces: browser pages, HTTP API and command line."""
