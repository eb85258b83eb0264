"""OpenAI's API: chat completions, text completions, embeddings, and feedback by completion id."""
