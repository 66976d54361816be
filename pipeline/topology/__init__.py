"""Declarative topology: YAML files → model → RabbitMQ objects → plan against a live broker → pictures."""
