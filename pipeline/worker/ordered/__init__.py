"""Runs the handlers of an ordered subscription: one event of a key at a time, in the order of publishing.

intake → flow → handle → commit → ack or burial. `life` is one time of owning a partition, with a `line` for each key
in it; `worker` joins the stages.
"""
