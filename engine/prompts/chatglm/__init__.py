"""The ChatGLM family in its published file layout: tokenizers and chat formats, one file each.

Written from the published files' facts; remote code is never run and nothing is unpickled.
"""

from engine.prompts.chatglm.load import is_chatglm, load_chatglm_renderer
from engine.prompts.chatglm.renderer import ChatGLMRenderer

__all__ = ["ChatGLMRenderer", "is_chatglm", "load_chatglm_renderer"]
