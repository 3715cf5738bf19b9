"""What the Python drivers share: the statements that every driver runs, and how results are printed.

It knows files and text. It does not know a driver, nor which server answers.
"""

import datetime
import os
import re
import sys
import uuid

#: Names what this run writes, differs between runs, and is never printed.
KEY = sys.argv[1]
#: The column by which the log of statements is searched.
MARK = sys.argv[2]
#: Many divisions: nobody waits for its end.
HEAVY = "SELECT " + ", ".join(f"count(*) FILTER (WHERE a / (a + {n}.7) > 0.3)" for n in range(1, 61)) + f", count(*) AS {MARK} FROM heavy"

PARSERS = {
    "int4": int,
    "int8": int,
    "text": str,
    "null": lambda _: None,
    "uuid": uuid.UUID,
    "ts": lambda text: datetime.datetime.fromisoformat(text.replace("Z", "+00:00")),
}


def say(name, *values):
    """One line a result: what the test compares."""
    line = " ".join(repr(shown(value)) for value in values)
    print(f"{name}: {line}".replace(KEY, "KEY"), flush=True)


def shown(value):
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, (list, tuple)) or type(value).__name__ in ("Record", "Row", "RowMapping"):
        return tuple(shown(v) for v in value)
    return value


def statements():
    """Name, SQL with $1, $2 ..., and parameters."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "statements.tsv"), encoding="utf-8") as file:
        for line in file:
            line = line.rstrip("\n")
            if line and not line.startswith("#"):
                name, _, sql, *values = line.split("\t")
                pairs = [value.split("=", 1) for value in values]
                yield name, sql.replace("MARK", MARK), [PARSERS[kind](text) for kind, text in pairs]


def percent(sql):
    """The same with %s; parameters stand in order in the statements."""
    return re.sub(r"\$\d+", "%s", sql)
