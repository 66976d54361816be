"""`make chaos`: requests through the front door while each box is killed and comes back; then the books.

In: a running `up`. Out: requests, failures and the longest wait for each box, and whether every event that was accepted
is processed or a dead letter, once, in every subscription. The boxes' tests in `tests/boxes` run the same, shorter.
"""
