"""The local endpoint: a trained model behind HTTP in OpenAI's format, or the text policy in front of another endpoint.

Used by: `codex-ml serve`.
"""
