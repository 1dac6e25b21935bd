"""What `codex-ml doctor` examines: the machine, the checkout, what is left over, what is optional.

This file imports nothing, so that one module can be imported without the others.
"""
