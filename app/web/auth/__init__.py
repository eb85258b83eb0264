"""The person who asks: sessions, keys, accounts, roles, and the origins that may send requests."""
