"""The HTTP side: FastAPI app, OpenAI-compatible API, feedback API, health and metrics."""
