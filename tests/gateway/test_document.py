"""schemathesis against the gateway's own OpenAPI document: no 5xx, and nothing that the document does not say."""

from __future__ import annotations

from typing import Any, cast

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import ignored_auth

from tests.support.gateway import Gateway

EXAMPLES = 15  # of each operation

# The lines of data of one event each; anything else in them is a 400 like any other.
schemathesis.openapi.media_type("application/x-ndjson", st.binary(min_size=1, max_size=200))
# Whether data that fits a JSON Schema is taken is not for a schema to say: ids are met again (409), and an unknown
# type of a CloudEvent is refused. What is wrong must be refused; what a document can't express may be.
NOT_ASKED = [
    schemathesis.checks.positive_data_acceptance,
    schemathesis.checks.negative_data_rejection,
    ignored_auth,  # it keeps the header that it means to leave out; test_callers.py asks this
]


def test_the_gateway_is_as_its_document_says(door: Gateway, key: str) -> None:
    headers = {"x-api-key": key}
    described = schemathesis.openapi.from_url(f"{door.url}/openapi.json", headers=headers)
    operations = [cast(Any, found).ok() for found in described.get_all_operations()]
    assert len(operations) >= 8
    for operation in operations:

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy())
        def as_it_says(case: Any) -> None:
            case.call_and_validate(headers=headers, excluded_checks=NOT_ASKED)

        as_it_says()
