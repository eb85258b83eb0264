"""What the pages say, in English and Chinese; the browser's language decides."""

from __future__ import annotations

import gradio as gr

_TEXTS = {
    "ask": ("Ask something…", "请输入问题…"),
    "mode": ("Prompt mode", "提示方式"),
    "send": ("Send", "发送"),
    "stop": ("Stop", "停止"),
    "regenerate": ("Regenerate", "重新生成"),
    "correct": ("Correct this answer", "修正这个回答"),
    "correction": ("The answer as it should have been", "正确的回答"),
    "save": ("Save correction", "保存修正"),
    "cancel": ("Cancel", "取消"),
    "new_chat": ("New chat", "新对话"),
    "chat": ("Chat", "对话"),
    "feedback": ("Feedback", "反馈"),
    "jobs": ("Tuning jobs", "训练任务"),
    "releases": ("Releases", "发布"),
    "history": ("Release history", "发布记录"),
    "loss": ("Loss", "损失"),
    "tune": ("Tune now", "开始训练"),
    "promote": ("Promote", "上线"),
    "force": ("Promote even if the gate says no", "忽略评估结果强制上线"),
    "rollback": ("Roll back", "回滚"),
    "release": ("Release", "版本"),
    "status": ("Status", "状态"),
}
I18N = gr.I18n(
    en={key: english for key, (english, _) in _TEXTS.items()},
    zh={key: chinese for key, (_, chinese) in _TEXTS.items()},
)


def text(key: str) -> str:
    """A translatable label; the key must be known."""
    if key not in _TEXTS:
        raise KeyError(key)
    label: str = I18N(key)  # type: ignore[assignment]  # gradio takes its I18nData wherever a str
    return label
