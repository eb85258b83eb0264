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
    "job": ("Job", "任务"),
    "loss": ("Loss", "损失"),
    "accuracy": ("Accuracy: chosen before rejected", "准确率：优选高于拒选"),
    "rewards": ("Rewards", "奖励"),
    "cancel_job": ("Cancel", "取消任务"),
    "resume_job": ("Resume", "继续任务"),
    "tune": ("Tune now", "开始训练"),
    "promote": ("Promote", "上线"),
    "force": ("Promote even if the gate says no", "忽略评估结果强制上线"),
    "rollback": ("Roll back", "回滚"),
    "release": ("Release", "版本"),
    "status": ("Status", "状态"),
    "report": ("Report", "举报"),
    "consent": (
        "My conversations may be used to improve the assistant",
        "允许将我的对话用于改进助手",
    ),
    # Why a thumb points where it points: the store's words
    "why": ("Why?", "为什么？"),
    "comment": ("Comment (optional)", "说明（可选）"),
    "send_reasons": ("Send", "提交"),
    "reason_wrong_facts": ("Wrong facts", "事实错误"),
    "reason_did_not_follow": ("Did not follow the request", "未按要求回答"),
    "reason_too_long": ("Too long", "太长"),
    "reason_too_short": ("Too short", "太短"),
    "reason_unsafe": ("Unsafe", "不安全"),
    "reason_bad_style": ("Bad style", "文风不好"),
    "reason_wrong_language": ("Wrong language", "语言不对"),
    "reason_right_facts": ("Facts are right", "事实正确"),
    "reason_followed": ("Followed the request", "符合要求"),
    "reason_right_length": ("Right length", "长度合适"),
    "reason_safe": ("Safe", "安全"),
    "reason_good_style": ("Good style", "文风好"),
    "reason_right_language": ("Right language", "语言正确"),
    "reason_other": ("Other", "其他"),
    # Two answers side by side
    "compare": ("Compare", "对比"),
    "compare_left": ("← Left is better", "← 左边更好"),
    "compare_right": ("Right is better →", "右边更好 →"),
    "compare_tie": ("Equally good", "一样好"),
    "compare_both_bad": ("Both are bad", "都不好"),
    # The console's tabs
    "overview": ("Overview", "概览"),
    "training_data": ("Training data", "训练数据"),
    "tuning": ("Tuning", "训练"),
    "kind": ("Kind", "类别"),
    "kind_pairs": ("Pairs", "偏好对"),
    "kind_unpaired": ("Unpaired", "单条评价"),
    "kind_demonstrations": ("Demonstrations", "示范回答"),
    "kind_set_aside": ("Set aside", "未采用"),
    "reason": ("Reason", "原因"),
    "any_reason": ("Any", "全部"),
    "search": ("Search (Enter)", "搜索（回车）"),
    "choose_row": ("Choose a row to see why it is here.", "点击一行查看其来源。"),
    "prompt": ("Prompt", "提示词"),
    "side_better": ("Better answer", "较好的回答"),
    "side_worse": ("Worse answer", "较差的回答"),
    "side_good": ("Good answer", "好的回答"),
    "side_bad": ("Bad answer", "差的回答"),
    "side_answer": ("Answer", "回答"),
    "changes": ("What the correction changed", "修改之处"),
    "facts": ("Why it is here", "来源"),
    "note": ("Note: why it is decided so", "备注：决定的理由"),
    "exclude": ("Exclude", "排除"),
    "edit": ("Save edit", "保存编辑"),
    "take_back": ("Take back", "撤销"),
    "mark_gold": ("Mark gold", "标为金标准"),
    "unmark_gold": ("Unmark gold", "取消金标准"),
    "alerts": ("Alerts", "警报"),
}
_TOASTS = {
    "thanks": ("Thank you.", "谢谢。"),
    "saved": ("Saved.", "已保存。"),
    "vote_cleared": ("Vote taken back.", "已取消评价。"),
    "vote_unsaved": ("An unsaved answer cannot be voted on.", "该回答未保存，无法评价。"),
    "answer_gone": ("This answer is gone.", "该回答已不存在。"),
    "no_answer": ("There is no answer yet.", "还没有回答。"),
    "no_comparison": ("There is nothing to compare.", "没有可对比的内容。"),
    "reported": (
        "Reported: nothing will be trained on this answer.", "已举报：该回答不会用于训练。",
    ),
    "correction_saved": ("Correction saved.", "修正已保存。"),
    "choose_row_first": ("Choose a row first.", "请先选择一行。"),
    "excluded": ("Excluded.", "已排除。"),
    "edited": ("Edited; the original stays in the store.", "已编辑；原文仍保留。"),
    "taken_back": ("Taken back.", "已撤销。"),
    "job_cancelled": (
        "Stopping; it can be resumed from its last checkpoint.",
        "正在停止；可从最近的检查点继续。",
    ),
    "job_resumed": ("Resumed.", "已继续。"),
    "set_aside_already": (
        "This is set aside already; there is nothing to exclude or edit.",
        "该条目未被采用，无需排除或编辑。",
    ),
}  # fmt: skip
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


def toast(key: str, request: gr.Request) -> str:
    """A passing message, in the language that the request asks for first: gradio translates labels
    in the browser, and these not at all."""
    english, chinese = _TOASTS[key]
    return chinese if request.headers.get("accept-language", "").startswith("zh") else english
