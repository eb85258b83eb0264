"""OpenAI's Responses API, translated to the chat completions of `app.web.openai`."""
