"""What is PostgreSQL's alone: its index, its statements for many rows, how it plans, tables that change."""

from __future__ import annotations

import random
import secrets

import pytest
from sqlalchemy import select, text
from sqlmodel import col

from pipeline.errors import HandlerError, StoreUnavailable
from pipeline.store import CommitReport, Counts, Effects, Outgoing, Store, Upsert, postgres_rows
from pipeline.store.postgres import FORGET, SEEN
from pipeline.store.tables import METADATA
from tests.store.conftest import Look, effects
from tests.store.models import Account, Ledger, Payment, Touched
from tests.store.places import PostgresDatabase


@pytest.fixture
def place(ready_place: PostgresDatabase) -> PostgresDatabase:
    """Only PostgreSQL."""
    return ready_place


async def test_an_id_too_long_for_the_index_fails_alone(store: Store) -> None:
    # given an id that can't be put into an index, and a type with a NUL, among good ones
    long = secrets.token_hex(5000)
    batch = [effects(event_id=name) for name in ("a", "b", long, "c", "d")] + [Effects("e", "t\0")]

    # when they are looked up and committed
    assert await store.seen([long]) == set()
    report = await store.commit(batch)

    # then the others are processed: the inbox must not wait for ever for what can't come into it
    assert report.processed == ["a", "b", "c", "d"]
    assert set(report.rejected) == {long, "e"}
    assert "index row" in str(report.rejected[long])


async def test_a_query_can_not_write_by_a_function_either(store: Store) -> None:
    with pytest.raises(HandlerError, match="a handler's query may only read"):
        await store.query(select(text("setval('ledger_id_seq', 99)")))


@pytest.mark.parametrize("repeated", [0, 3, 250, 499])
async def test_many_upserts_with_repeated_keys(store: Store, look: Look, repeated: int) -> None:
    # given 500 upserts, some of which change a row of the same batch again
    numbers = [*range(500 - repeated), *(random.Random(repeated).randrange(500 - repeated) for _ in range(repeated))]
    random.Random(1).shuffle(numbers)
    batch = [effects(Upsert(Touched(id=n, name=f"{at}"))) for at, n in enumerate(numbers)]

    # when they are committed together
    report = await store.commit(batch)

    # then each row has its last value, and was changed once for each that came after the first
    assert report.rejected == {}
    last = {number: str(at) for at, number in enumerate(numbers)}
    expected = [(number, name, numbers.count(number) - 1) for number, name in sorted(last.items())]
    assert look("SELECT id, name, version FROM touched ORDER BY id") == expected


async def test_rows_too_large_for_one_message_go_by_several(
    store: Store, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given that 1000 characters were too many for one
    monkeypatch.setattr(postgres_rows, "LARGEST", 1000)

    # when rows are committed that are larger together, and one that is by itself
    texts = [f"{number:0300}" for number in range(50)] + ["x" * 5000]
    report = await store.commit([effects(Ledger(text=each)) for each in texts])

    # then all are there, in their order
    assert report.rejected == {}
    assert look("SELECT text FROM ledger ORDER BY id") == [(each,) for each in texts]


async def test_many_rows_at_once_that_lend_a_column_from_the_table(store: Store, look: Look) -> None:
    # given accounts
    await store.commit([effects(Account(id=number, amount=number)) for number in range(300)])

    # when they are upserted without a column that can't be NULL
    part = [Account.model_construct(_fields_set={"id", "limit"}, id=number, limit=7) for number in range(300)]
    report = await store.commit([effects(Upsert(row)) for row in part])

    # then that column has stayed
    assert report.rejected == {}
    assert look("SELECT * FROM account ORDER BY id") == [(number, number, 7) for number in range(300)]


async def test_keys_are_compared_byte_by_byte(look: Look, store: Store) -> None:
    # given the library's tables, when their keys are looked at, then no language's order can come between
    keys = look(
        "SELECT attrelid::regclass::text, attname, collname FROM pg_attribute"
        " JOIN pg_index ON indrelid = attrelid AND attnum = ANY (indkey) AND indisprimary"
        " JOIN pg_collation ON pg_collation.oid = attcollation WHERE attrelid::regclass::text LIKE 'pipeline%'"
        " AND attrelid::regclass::text <> 'pipeline_alembic_worker'"
    )
    assert len(keys) == sum(len(table.primary_key) for table in METADATA.sorted_tables)
    assert {collation for _, _, collation in keys} == {"C"}
    assert await store.counts() == Counts(0, 0, 0)


@pytest.mark.parametrize(
    ("sql", "table", "key"), [(SEEN, "pipeline_inbox", "event_id"), (FORGET, "pipeline_outbox", "key")]
)
async def test_a_planner_that_knows_nothing_yet_uses_the_key(
    store: Store, look: Look, sql: str, table: str, key: str
) -> None:
    # given tables that have grown before anybody looked at them
    await store.commit([effects(outgoing=[Outgoing("x", "k", "m", b"", b"")]) for _ in range(2000)])
    look("SELECT set_config('plan_cache_mode', 'force_custom_plan', false)")
    ids = ",".join(f"e{number}" for number in range(500))
    plain = sql.format(table=table, key=key).replace("$1", "'payments'").replace("$2", f"'{{{ids}}}'")

    # when it is asked how it would find 500 keys, then not by reading all
    plan = "\n".join(line for (line,) in look(f"EXPLAIN {plain}"))
    assert f"{table}_pkey" in plan
    assert "Seq Scan" not in plan


async def test_a_table_that_changes_while_it_is_used(store: Store, look: Look) -> None:
    # given prepared statements
    batch = [effects(Payment(order_id=1, customer="x"), event_id="a")]
    payments = select(col(Payment.customer))
    assert (await store.commit(batch)).processed == ["a"]
    assert await store.query(payments) == ["x"]

    # when the columns they give back change their type
    look("ALTER TABLE payment ALTER COLUMN customer TYPE varchar(99)")
    look('ALTER TABLE pipeline_inbox ALTER COLUMN event_id TYPE varchar(999) COLLATE "C"')

    # then that is nobody's fault, and passes
    assert await store.seen(["a"]) == {"a"}
    with pytest.raises(StoreUnavailable, match="its tables were changed"):
        await store.query(payments)
    with pytest.raises(StoreUnavailable, match="its tables were changed"):
        await store.commit(batch)
    assert await store.query(payments) == ["x"]
    assert await store.commit(batch) == CommitReport([], {"a"}, {})
