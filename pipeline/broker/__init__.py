"""A private RabbitMQ node on this machine, for development and tests.

In: a state folder (`.pipeline/`). Out: a broker that accepts AMQP, and its address. Everything of the node
stays in the state folder and on the loopback interface; no other node is touched, nothing is installed
system-wide if it can be avoided. Read in this order: `locate` (which broker?), `installation` and `packages`
(which programs?), `node` (start, stop), `node_files`, `ports`, `processes`, `probe`.
"""
