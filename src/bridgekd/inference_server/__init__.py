"""The assistant behind an OpenAI-compatible server: started, asked and scored over HTTP.

keeper <- process; asking -> {writing, scoring}; opening puts them together. No torch, and nothing
of the ledger: what answers here is the person's own.
"""
