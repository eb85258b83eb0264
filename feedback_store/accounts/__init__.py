"""Accounts: who may use this server, how they prove it, and what operators did."""
