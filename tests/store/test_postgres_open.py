"""Reaching PostgreSQL: what its URL may say, and what is said when it can't be reached or used."""

from __future__ import annotations

import secrets
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import select, text

from pipeline.errors import ConfigurationError, PipelineError, StoreUnavailable
from pipeline.store import Counts, Store
from tests.store.conftest import effects
from tests.store.models import TABLES, Account, Payment
from tests.store.places import PostgresDatabase
from tests.support.postgres import Databases, Server
from tests.support.tls import server_context


@pytest.fixture
def place(ready_place: PostgresDatabase) -> PostgresDatabase:
    """A database that has the tables."""
    return ready_place


@pytest.fixture
def user(databases: Databases) -> Iterator[str]:
    """A user of the server who may do no more than anybody; its password is "pw"."""
    name = f"u_{secrets.token_hex(4)}"
    databases.run(f"CREATE ROLE {name} LOGIN PASSWORD 'pw'")
    yield name
    databases.run(f"DROP ROLE {name}")


async def open_and_close(url: str) -> None:
    store = await Store.open(url, "payments", [Payment])
    await store.close()


async def setting(store: Store, name: str) -> str:
    (value,) = await store.query(select(text(f"current_setting('{name}')")))
    return str(value)


async def test_every_way_to_write_the_url_leads_there(place: PostgresDatabase, postgres: Server) -> None:
    # given the same database by TCP, by its socket, with the address among the parameters, and by subscription
    patient = "timeout=60"  # a busy machine may let a connection wait for longer than by default
    plain = f"{place.database.url}?{patient}"
    login = f"pipeline:{postgres.password}"
    name = place.database.name
    named = plain.replace(name, "{subscription}")
    urls = {
        plain: "payments",
        plain.replace("postgresql:", "postgresql+asyncpg:"): "payments",
        plain.replace("postgresql:", "postgres:"): "payments",
        f"postgresql://{login}@/{name}?host={postgres.folder}&port={postgres.port}&{patient}": "payments",
        f"postgresql://{login}@/?host=127.0.0.1:1,127.0.0.1:{postgres.port}&dbname={name}&{patient}": "payments",
        named: name,
    }

    for number, (url, subscription) in enumerate(urls.items()):
        # when a store is opened by it
        store = await Store.open(url, subscription, [Payment])
        await store.commit([effects(Payment(order_id=number, customer="x"))])
        await store.close()

        # then it is there
        assert place.look("SELECT count(*) FROM payment") == [(number + 1,)]


async def test_parameters_are_settings_of_the_session(place: PostgresDatabase) -> None:
    # given a URL with settings of its own, and one without
    told = "?timeout=3&command_timeout=7&application_name=mine&jit=on&search_path=public"
    for query, expected in (
        (told, {"lock_timeout": "3s", "statement_timeout": "7s", "application_name": "mine", "jit": "on"}),
        ("", {"lock_timeout": "5s", "statement_timeout": "30s", "application_name": "pipeline payments", "jit": "off"}),
    ):
        # when a store is opened by it, then its connections have them
        store = await Store.open(f"{place.database.url}{query}", "payments")
        assert {name: await setting(store, name) for name in expected} == expected
        await store.close()


@pytest.fixture
def certificate(tmp_path: Path, fragile: Databases) -> Iterator[Path]:
    """What a client of the server has to trust, while it speaks TLS."""
    _, file = server_context(tmp_path)
    server = fragile.server
    server.stop()
    server.start(ssl="on", ssl_cert_file=server.lend(file), ssl_key_file=server.lend(tmp_path / "key.pem"))
    yield file
    server.stop()
    server.start()


async def test_tls_is_as_the_url_wants_it(certificate: Path, fragile_place: PostgresDatabase, tmp_path: Path) -> None:
    # given a server with a certificate, and another certificate
    (tmp_path / "other").mkdir()
    _, other = server_context(tmp_path / "other")
    url = fragile_place.database.url

    # when it is trusted, or need not be, then the connection is encrypted
    for query in (f"sslmode=verify-full&sslrootcert={certificate}&timeout=60", "ssl=require&timeout=60"):
        store = await Store.open(f"{url}?{query}", "payments")
        encrypted = text("ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert await store.query(select(encrypted)) == [True]
        await store.close()

    # and where just the other one is trusted, no password is sent
    with pytest.raises(StoreUnavailable, match=r"can't be reached .*certificate verify failed"):
        await open_and_close(f"{url}?sslmode=verify-full&sslrootcert={other}")


WRONG_URLS = {
    "a parameter nobody knows": ("?nonsense=1", ConfigurationError, 'parameter "nonsense"'),
    "a setting that is none": ("?work_mem=much", ConfigurationError, 'value for parameter "work_mem"'),
    "a TLS mode that is none": ("?sslmode=maybe", ConfigurationError, "can't be used: .*sslmode"),
    "a certificate that is not there": (
        "?sslmode=verify-full&sslrootcert=/nowhere/ca.pem",
        ConfigurationError,
        "names /nowhere/ca.pem, which is no file",
    ),
    "TLS where there is none": ("?sslmode=require", StoreUnavailable, r"can't be reached \(.*rejected SSL upgrade\)"),
    "a time that is none": ("?timeout=soon", ConfigurationError, "timeout=soon .* must be a number of seconds"),
    "no time at all": ("?command_timeout=0", ConfigurationError, "command_timeout=0 .* must be a number of seconds"),
    "read-only": ("?default_transaction_read_only=on", StoreUnavailable, "may only be read; is it a standby"),
    "no tables where it looks": ("?search_path=nowhere", ConfigurationError, "tables can't be made in the database"),
}


@pytest.mark.parametrize(("query", "kind", "says"), WRONG_URLS.values(), ids=WRONG_URLS)
async def test_a_url_that_can_not_be_used_says_why(
    place: PostgresDatabase, query: str, kind: type[PipelineError], says: str
) -> None:
    with pytest.raises(kind, match=says) as caught:
        await open_and_close(f"{place.database.url}{query}")
    assert_no_secret(caught.value, place)


def assert_no_secret(error: BaseException, place: PostgresDatabase) -> None:
    """Neither the password nor what stands for it in a URL."""
    password = place.databases.server.password
    assert password not in str(error)
    assert quote(password) not in str(error)
    assert "hunter2" not in str(error)


async def test_wrong_login_or_name_says_so_and_shows_no_password(place: PostgresDatabase) -> None:
    url = place.database.url
    for wrong, says in {
        place.databases.server.url(place.database.name, password="hunter2"): "password authentication failed",
        f"{url}?password=hunter2&sslpassword=hunter2&nonsense=1": 'parameter "nonsense"',
        place.databases.server.url(place.database.name, user="nobody"): "password authentication failed",
        url.replace(place.database.name, "nowhere"): 'database "nowhere" does not exist.*create it, or correct',
    }.items():
        with pytest.raises(PipelineError, match=says) as caught:
            await open_and_close(wrong)
        assert_no_secret(caught.value, place)
        assert "postgresql://" in str(caught.value)


async def test_nobody_at_the_address() -> None:
    # given a port where nobody listens, and one where somebody listens who says nothing
    with socket.socket() as closed, socket.create_server(("127.0.0.1", 0)) as silent:
        closed.bind(("127.0.0.1", 0))
        for where, says in ((closed, "Connect call failed"), (silent, r"no answer within 0\.3 s")):
            port = where.getsockname()[1]

            # when a store is opened there, then the error says where it looked
            with pytest.raises(
                StoreUnavailable, match=rf"postgresql://u@127\.0\.0\.1:{port}/x can't be reached.*{says}"
            ):
                await open_and_close(f"postgresql://u:hunter2@127.0.0.1:{port}/x?timeout=0.3")


async def test_a_user_without_rights(place: PostgresDatabase, databases: Databases, user: str) -> None:
    # given a user who may write into no table, and a database where they may not make any
    ready, empty = place.database, place.beside()
    assert isinstance(empty, PostgresDatabase)
    empty.look("REVOKE CREATE ON SCHEMA public FROM PUBLIC")

    # when a store is opened, then that is said at once
    for name in (ready.name, empty.database.name):
        with pytest.raises(StoreUnavailable, match=r"permission denied for .*GRANT this user"):
            await open_and_close(databases.server.url(name, user, "pw"))

    # and with the rights to the rows alone it works
    place.look(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {user}")
    store = await Store.open(f"{databases.server.url(ready.name, user, 'pw')}?timeout=60", "payments", TABLES)
    assert (await store.commit([effects(Payment(order_id=1, customer="x"))])).rejected == {}

    # and a row that a policy of the table forbids is the event's fault, though the server calls it missing rights
    place.look("ALTER TABLE account ENABLE ROW LEVEL SECURITY")
    place.look("CREATE POLICY small ON account USING (amount < 10)")
    report = await store.commit([effects(Account(id=1, amount=99), event_id="bad"), effects(Account(id=2, amount=1))])
    assert "row-level security" in str(report.rejected["bad"])
    assert await store.counts() == Counts(2, 0, 0)
    await store.close()
    place.look(f"DROP OWNED BY {user}")


async def test_without_the_driver_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # given an installation without the extra
    for name in [name for name in sys.modules if name.startswith("pipeline.store.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)

    # when PostgreSQL is wanted, then it says what to install
    with pytest.raises(ConfigurationError, match=r"pip install 'event-pipeline\[postgres\]'"):
        await open_and_close("postgresql://user:hunter2@host/x")
