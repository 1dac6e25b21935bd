"""The ledger: which split each content was dealt to, so that it never moves."""
