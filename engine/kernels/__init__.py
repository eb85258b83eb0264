"""The operations that a decoder consists of: their definition in torch, and compiled code."""
