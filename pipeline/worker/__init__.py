"""Runs handlers on what a subscription's queue delivers.

intake → handle → commit → settle: each file is one stage, `subscription` joins them, `process` runs them in one
operating system process, `supervisor` keeps such processes alive.
"""
