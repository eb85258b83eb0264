"""Anthropic's Messages API, translated to the chat completions of `app.web.openai`."""
