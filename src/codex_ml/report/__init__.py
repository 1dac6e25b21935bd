"""One page for people: plots, tables, model card."""
