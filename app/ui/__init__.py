"""The browser's pages, in Gradio: chat and console."""
