"""Outcomes → what people read: a table on the terminal, results.md, pictures."""
