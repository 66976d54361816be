"""Fixtures every test may use, and how patient Hypothesis is."""

from hypothesis import HealthCheck, settings

# How long an example takes says nothing on a machine that does other things as well; the first text that Hypothesis
# makes in a fresh clone takes seconds, for it builds its table of characters.
settings.register_profile("pipeline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pipeline")

pytest_plugins = ["tests.support.broker", "tests.support.postgres", "tests.support.redis"]
