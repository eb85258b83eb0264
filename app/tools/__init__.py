"""Tools that a model may call in the chat: the operator lists them, each person switches them on.

    toolbox.py         which tools are on, and those that one person's answer is offered
    agent.py           an answer that calls tools: ask the model, run its calls, ask again
    called.py          one call as it is shown and stored
    running.py         one call within its limits of time and size
    calculator.py, clock.py, document_search.py      the built-in tools
    mcp_servers.py     tools of MCP servers, as last listed; a session for each answer
    mcp_session.py     one connection, which neither hangs nor breaks an answer

A tool is a function of its arguments, made for one person's answer; the built-in ones are tools of
LangChain. Results are texts by strangers: they are shown as text, and taught to nobody.
"""
