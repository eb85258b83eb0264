"""HTML of answers and small pages, without gradio: what the HTTP API sends to the browser."""
