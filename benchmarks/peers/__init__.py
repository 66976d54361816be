"""The same job with other libraries: publish with confirms, and consume with a handler that does nothing but count.

Each module is run by an interpreter that has only that library: `python -m benchmarks.peers.with_x '{"count": …}'`
publishes; the worker is started as its documentation says. `benchmarks.peer` knows how. All of them: durable quorum
queue, persistent messages, publisher confirms, ack after the handler.
"""
