"""Learning beside the running server: rounds of tuning, canaries, and new evidence.

    rounds.py        the loop of rounds, in a thread of the server
    tune.py          one run of tuning that a person starts
    canaries.py      the canary on the running engine
    alternatives.py  further answers to be compared, written while the engine is idle
    drafting.py      drafts of examples from documents
    open_webui.py    ratings and edits made in Open WebUI
    schedules.py     work that is repeated in the background

The rules of a round and of a canary are in `deploy`; here they meet the engine and the clock.
"""
