"""The HTTP server: FastAPI application, OpenAI-compatible API, feedback API, health and metrics."""
