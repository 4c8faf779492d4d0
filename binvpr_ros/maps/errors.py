# SPDX-License-Identifier: Apache-2.0
"""DatabaseError, and what SQLite's own errors mean for a map file."""

from __future__ import annotations

import sqlite3

SQLITE_ERRORS = (sqlite3.Error, MemoryError, UnicodeDecodeError)
"""How the module sqlite3 reports what SQLite refuses: also that a value is too large, and in words out of the file."""
REMEDY = "restore a copy of the file, or run: map recover"


class DatabaseError(RuntimeError):
    """The map file cannot be used or written; the message names the file and says what to do."""


def first_line(error: BaseException) -> str:
    """Return what SQLite says without the statement that it may repeat after that."""
    return str(error).strip().partition("\n")[0]


def is_denial(error: BaseException) -> bool:
    """Say whether SQLite means that it may not open or write a file, or not make one beside it."""
    return "unable to open" in str(error) or "readonly" in str(error)


def is_damage(error: BaseException) -> bool:
    """Say whether SQLite means that the file is one of its own, and damaged."""
    return "malformed" in str(error)
