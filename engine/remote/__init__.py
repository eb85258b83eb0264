"""An engine whose tokens are made by vLLM's servers."""
