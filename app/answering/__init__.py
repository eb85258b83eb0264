"""Answers: a question becomes a prompt, the engine answers, the store keeps both.

    conversation.py      one turn of a chat; question_prompt.py builds its prompt
    comparing.py         two answers to one question, shown blind
    completions.py       answers to the messages that a client of the API sends
    answering.py         the core of the three: submits requests, stores, yields updates
    self_consistency.py  several samples, of which the most frequent result is shown
    live_answers.py      answers that go on without their page
    canary_routing.py    which release answers which conversation

Nothing here knows HTTP or HTML.
"""
