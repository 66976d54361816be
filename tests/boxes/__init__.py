"""The deployment: what its files promise, the front door, and the loss of each box under load."""
