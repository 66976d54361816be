"""Programs of a measure, each in a process of its own; they talk by `benchmarks.protocol`."""
