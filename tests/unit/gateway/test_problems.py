"""Every error of the library has an answer, and none of them says what was sent or where a database is."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from pipeline import errors
from pipeline.errors import InvalidPayload, OutboxFull, PipelineError, StoreUnavailable
from pipeline.gateway.problems import FAULTS_SHOWN, MEDIA_TYPE, Fault, Problem, problem_of, refused


def kinds(of: type[PipelineError] = PipelineError) -> Iterator[type[PipelineError]]:
    yield of
    for each in of.__subclasses__():
        if each.__module__ == errors.__name__:
            yield from kinds(each)


@pytest.mark.parametrize("kind", sorted(set(kinds()), key=str))
def test_each_error_has_an_answer(kind: type[PipelineError]) -> None:
    error = kind.__new__(kind)
    Exception.__init__(error, "host=db.internal")
    if isinstance(error, InvalidPayload):
        error.faults = ()
    problem = problem_of(error)
    assert 400 <= problem.status < 600
    answer = problem.response()
    assert answer.media_type == MEDIA_TYPE
    assert json.loads(bytes(answer.body))["status"] == problem.status
    if problem.status >= 500:
        assert "db.internal" not in problem.detail
    if problem.status == 503:
        assert int(problem.headers["retry-after"]) > 0


def test_what_is_ours_is_503_with_a_time() -> None:
    full = OutboxFull.__new__(OutboxFull)
    assert [problem_of(each).status for each in (StoreUnavailable("x"), full)] == [503, 503]


def test_not_all_of_many_faults_are_shown() -> None:
    faults = [Fault("a", "is wrong", index) for index in range(1000)]
    shown = json.loads(Problem(400, "x", "y", faults).body())["errors"]
    assert len(shown) == FAULTS_SHOWN
    assert shown[3] == {"path": "a", "message": "is wrong", "index": 3}


def test_headers_have_their_names() -> None:
    assert refused(429, "rate", "much", retry_after="2").problem.headers == {"retry-after": "2"}


def test_a_long_text_is_not_repeated_whole() -> None:
    assert len(problem_of(errors.UndecodableBody("x" * 100_000)).body()) < 2000
    assert len(problem_of(errors.UnknownEventType("x" * 100_000)).body()) < 2000
