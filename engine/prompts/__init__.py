"""Prompts: modes, worked examples, renderers to token ids, and the split of thought and answer."""
