"""The assistant on an OpenAI-compatible server: start it, generate and score over HTTP.

`supervisor` <- `process`; `client` -> {`generate`, `logprobs`}; `open_server` puts them together.
Nothing here imports torch or writes to the ledger: this server costs no money.
"""
