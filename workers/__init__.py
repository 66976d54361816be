"""The reference application's handlers: an order service. What a user of `pipeline` would write, and nothing more."""
