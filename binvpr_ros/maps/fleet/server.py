# SPDX-License-Identifier: Apache-2.0
"""Connect to a fleet's PostgreSQL, and say in a sentence what keeps a robot from it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

from binvpr_ros.maps.fleet.errors import FleetError
from binvpr_ros.maps.fleet.schema import Realm, pgvector, version_of, why_without_index

CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 2.0
"""After which the server gives a statement up."""
ANSWER_SECONDS = 5.0
"""After which the client does, where the network is what is slow."""
SETTINGS = {
    "application_name": "binvpr",
    "search_path": "binvpr,public",
    "statement_timeout": f"{STATEMENT_SECONDS:.0f}s",
    "hnsw.ef_search": "200",
    "hnsw.iterative_scan": "relaxed_order",  # the robot's own map is left out of what comes
    "plan_cache_mode": "force_custom_plan",  # so that one partition is planned for, and its index is used
    # The planner takes the index for dearer than it is: up to some 100,000 keyframes it would read them all.
    "enable_seqscan": "off",
    # A robot that loses power must not keep its lock for the two hours that are usual.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
MOST_REASON = 200
"""Characters of what asyncpg says, which may quote the values of a statement."""
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
NOTHING = "this database holds no map of a fleet; run: binvpr fleet init URL --site SITE"
VERIFIED = ("verify-ca", "verify-full")
CONNECTION_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, EOFError, asyncio.TimeoutError)
"""What asyncpg raises where a server, or the way to it, is not as it should be."""


def host_of(url: str) -> str:
    """Return the server of a URL, and its database, without user and password: what may be logged."""
    parts = urlsplit(url)
    named = parse_qs(parts.query).get("host", [""])[0]
    return f"{parts.hostname or named or 'localhost'}{parts.path}"


def why_unsafe(url: str) -> str:
    """Return why a connection could be listened to or answered by somebody else; "" where it could not."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    host = parts.hostname or query.get("host", [""])[0]
    if not host or host.startswith("/") or host in LOCAL_HOSTS or query.get("sslmode", [""])[0] in VERIFIED:
        return ""
    return (
        f"the connection to {host} does not verify the server; add ?sslmode=verify-full&sslrootcert=ca.pem to its URL"
    )


@contextlib.asynccontextmanager
async def connected(url: str, *, patient: bool = False) -> AsyncIterator[Any]:
    """Connect to a server; `patient` where a person waits for statements of any length. Raises FleetError.

    The password comes from PGPASSWORD, PGPASSFILE or ~/.pgpass.
    """
    settings = {**SETTINGS, "statement_timeout": "0"} if patient else SETTINGS
    answer = None if patient else ANSWER_SECONDS
    with sentences(url):
        try:
            connection = await asyncpg.connect(
                url, timeout=CONNECT_SECONDS, command_timeout=answer, server_settings=settings
            )
        except ValueError as error:  # of a URL, or what the environment adds to it
            raise _sentence(error, host_of(url)) from None
    try:
        with sentences(url):
            yield connection
    finally:
        try:
            await asyncio.shield(connection.close(timeout=1.0))
        except (*CONNECTION_ERRORS, asyncio.CancelledError):
            connection.terminate()


@contextlib.contextmanager
def sentences(url: str) -> Any:
    """Make a FleetError of what goes wrong with a server."""
    try:
        yield
    except CONNECTION_ERRORS as error:
        raise _sentence(error, host_of(url)) from None


def _sentence(error: BaseException, host: str) -> FleetError:
    """Return what an error of asyncpg means, and what to do; it never holds a password."""
    reason = str(error).strip().partition("\n")[0][:MOST_REASON] or type(error).__name__
    if isinstance(error, asyncpg.InvalidPasswordError | asyncpg.InvalidAuthorizationSpecificationError):
        text = f"{host} refuses the user ({reason}); set PGUSER and PGPASSWORD, or write ~/.pgpass"
    elif isinstance(
        error, asyncpg.InvalidCatalogNameError | asyncpg.UndefinedTableError | asyncpg.InvalidSchemaNameError
    ):
        text = f"{host} holds no map of a fleet; run: binvpr fleet init URL --site SITE"
    elif isinstance(error, asyncpg.InsufficientPrivilegeError):
        text = f"{host} does not allow it ({reason}); run: binvpr fleet init URL --robot NAME, as the database's owner"
    elif isinstance(error, ssl.SSLCertVerificationError):
        text = f"{host} does not prove who it is ({reason}); check sslrootcert, and the host's name, in the URL"
    elif isinstance(error, asyncpg.exceptions.ClientConfigurationError):
        text = f"the URL of {host} cannot be used ({reason}); mend it"
    else:
        return FleetError(_passing(error, reason, host))
    return FleetError(text, lasting=True)


def _passing(error: BaseException, reason: str, host: str) -> str:
    """Return what an error means that may pass by itself."""
    if isinstance(error, asyncpg.DiskFullError | asyncpg.InsufficientResourcesError):
        return f"{host} has no room ({reason}); make room, or run: binvpr fleet forget"
    if isinstance(error, asyncpg.QueryCanceledError | asyncio.TimeoutError):
        return f"{host} is too slow, and is asked again later"
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        return f"{host} takes no writes ({reason}); name the primary server"
    if isinstance(error, OSError | EOFError | asyncpg.PostgresConnectionError | asyncpg.OperatorInterventionError):
        return f"{host} cannot be reached ({reason}); check the server and the network"
    if isinstance(error, asyncpg.InterfaceError):
        return f"{host} has closed the connection ({reason}); check the server and the network"
    return f"{host} answers with an error ({reason}); see the server's log"


def ask_version(url: str) -> tuple[int, str]:
    """Return the version of a fleet's tables, and why their search has no index ("": it has); raises FleetError."""

    async def ask() -> tuple[int, str]:
        async with connected(url) as connection:
            version = await version_of(connection)
            if version is None:
                raise FleetError(NOTHING, lasting=True)
            return version, why_without_index(await pgvector(connection))

    return asyncio.run(ask())


async def realm_of(connection: Any, site: str, model_sha256: str, bits: int) -> Realm:
    """Return the realm of a site and a model; raises FleetError where the fleet has none."""
    if await version_of(connection) is None:
        raise FleetError(NOTHING, lasting=True)
    rows = await connection.fetch(
        "SELECT realm, model_sha256, bits, index_from, index_bits FROM realms WHERE site = $1", site
    )
    for number, model, count, first, indexed in rows:
        if model == model_sha256:
            if count != bits or not (first > 0 and indexed > 0 and first - 1 + indexed <= bits):
                raise FleetError(
                    f"site {site!r} has descriptors of {count} bits, not {bits}; see its realm", lasting=True
                )
            return Realm(number, count, first, indexed)
    if rows:
        raise FleetError(
            f"site {site!r} of the fleet has maps of another model (SHA-256 {rows[0]['model_sha256'][:12]}...); use "
            f"that model, or add this one with: binvpr fleet init URL --site {site}", lasting=True,
        )  # fmt: skip
    raise FleetError(f"the fleet has no site {site!r}; add it with: binvpr fleet init URL --site {site}", lasting=True)
