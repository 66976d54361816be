"""Which letters a command means."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from pipeline.dead_letters.reading import read_dead_letter
from pipeline.dead_letters.selection import EVERYTHING, Selection, make_selection, require_choice
from pipeline.dead_letters.summary import Summary, summarise
from pipeline.errors import ConfigurationError
from tests.unit.dead_letters.samples import LAST, PAYMENTS, WORKER_HEADERS, dead

LETTER = read_dead_letter(dead(WORKER_HEADERS, message_id="1", type="order.created"), PAYMENTS)


@pytest.mark.parametrize(
    "selection",
    [
        EVERYTHING,
        make_selection(ids=["0", "1"]),
        make_selection(errors=["cardstolen"]),
        make_selection(errors=["nothing", "REFUSED"]),
        make_selection(errors=["app.*"]),
        make_selection(errors=["card ref?sed"]),
        make_selection(types=["order.created"], reasons=["exhausted"]),
        make_selection(older_than="5m", now=LAST + timedelta(minutes=6)),
        Selection(fingerprints=frozenset({LETTER.fingerprint})),
    ],
)
def test_it_fits(selection: Selection) -> None:
    assert selection.matches(LETTER)


@pytest.mark.parametrize(
    "selection",
    [
        make_selection(ids=["0"]),
        make_selection(errors=["ValueError"]),
        make_selection(errors=["refused*"]),  # a glob is about the whole text
        make_selection(ids=["1"], types=["order.cancelled"]),  # filters of different kinds must all fit
        make_selection(reasons=["rejected"]),
        make_selection(older_than="5m", now=LAST + timedelta(minutes=4)),
        Selection(fingerprints=frozenset()),
    ],
)
def test_it_does_not_fit(selection: Selection) -> None:
    assert not selection.matches(LETTER)


def test_a_letter_without_a_time_is_never_old_enough() -> None:
    assert not make_selection(older_than="1s").matches(replace(LETTER, last_failure=None))


@pytest.mark.parametrize("text", ["5", "soon", "-1m", "99999999999d", "1e3s"])
def test_a_duration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--older-than"):
        make_selection(older_than=text)


def test_an_empty_word_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="--error is empty"):
        make_selection(errors=[""])


def test_acting_on_everything_must_be_asked_for() -> None:
    with pytest.raises(ConfigurationError, match="nothing is chosen to redrive"):
        require_choice(EVERYTHING, everything=False, verb="redrive")
    with pytest.raises(ConfigurationError, match="--all means every dead letter"):
        require_choice(make_selection(ids=["1"]), everything=True, verb="redrive")
    require_choice(EVERYTHING, everything=True, verb="redrive")
    require_choice(make_selection(ids=["1"]), everything=False, verb="redrive")


def test_figures() -> None:
    other = replace(LETTER, error="ValueError", last_failure=LAST - timedelta(hours=1), size=10)

    assert summarise([LETTER, other, other, replace(other, last_failure=None)]) == Summary(
        count=4,
        size=32,
        oldest=LAST - timedelta(hours=1),
        newest=LAST,
        errors=(("ValueError", 3), ("app.CardStolen", 1)),
        types=(("order.created", 4),),
    )
    assert summarise([]) == Summary(0, 0, None, None, (), ())
