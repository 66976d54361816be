"""The whole picture on this machine, without Docker: `make up` and `make down`.

In: the programs of the machine or of its packages. Out: haproxy before two gateways, a relay, a worker a subscription,
RabbitMQ, and a PostgreSQL and a Redis for each of them: every box a process of its own, on loopback, with a random
password, in a folder under `.pipeline/up/`. Read in this order: `picture` (which boxes), `servers` and `application`
(how each is run), `supervisor` (start, restart, stop), `place`, `marks`, `ask`, `programs`, `journal`, `control`.
"""
