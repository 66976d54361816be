"""Where events are (`status.py`), and who works (`consumers.py`). In: settings and topology. Out: views, as values."""
