"""How fast it is here: `make bench` measures this library, its ceiling and its peers, on this machine, in one run.

    measures/   what is measured, one file a row of the table; each returns an `Outcome`
    programs/   what runs in a process of its own: publishers, consumers, a worker that notes its commit times
    peers/      the same job done with Celery, Dramatiq, FastStream and taskiq, in an environment of their own
    report/     outcomes → terminal, benchmarks/results.md, pictures

The rest are the parts these share: `place` (virtual host, topology, folder), `processes`, `path` (one event's whole
way), `scale` (how many), `results` (values).
"""
