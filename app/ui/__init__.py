"""The browser's pages, in Gradio: chat and console."""

from app.ui.gradio_import import skip_stub_files

skip_stub_files()
