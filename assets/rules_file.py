"""Rules files: TOML read by a schema, with errors that name file, line, key and what is allowed.

Here: reading and its errors. Not here: which rules there are (attribution/rules.py, orders/rules.py).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Mapping

# section -> key -> (parse, what it is in words). parse returns the value, or raises: RulesError with words of its own,
# ValueError, TypeError or AttributeError for anything that is not what the words say.
Schema = Mapping[str, Mapping[str, tuple[Callable, str]]]


class RulesError(Exception):
    """Rules that cannot be used; the message names the file, the line, the key and what is allowed."""


def read(
    text: str, name: str, schema: Schema, *, texts: Collection[str] = (), optional: Collection[tuple[str, str]] = (),
    why: Mapping[str, str] | None = None,
) -> dict[str, dict]:  # fmt: skip
    """The values of a text, by section and key; texts of the top level lie under "".

    name: how errors call the text. texts: keys above all sections, each a text that is not empty. optional: (section, key) that
    may be missing. why: section -> what to add where a key of it is unknown. Raises RulesError.
    """
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RulesError(f"{name}: not TOML: {error}") from error
    found: dict[str, dict] = {"": {}}
    for key in texts:
        value = given.pop(key, None)
        if not isinstance(value, str) or not value:
            raise RulesError(f'{at(name, text, key)}: {key} is missing or no text; it is a name like "likes stay 5 s"')
        found[""][key] = value
    for section, values in given.items():
        if section not in schema:
            raise RulesError(f"{at(name, text, section)}: unknown [{section}]; allowed: {', '.join([*texts, *schema])}")
        if not isinstance(values, dict):
            raise RulesError(f"{at(name, text, section)}: {section} is a table: write [{section}]")
        for key in values:
            if key not in schema[section]:
                known = ", ".join(schema[section]) + (f"; {why[section]}" if why and section in why else "")
                raise RulesError(f"{at(name, text, section, key)}: unknown key {section}.{key}; allowed: {known}")
    for section, keys in schema.items():
        values = given.get(section, {})
        wanted = {key: how for key, how in keys.items() if key in values or (section, key) not in optional}
        found[section] = {key: _value(name, text, section, key, values, *how) for key, how in wanted.items()}
    return found


def _value(name: str, text: str, section: str, key: str, values: dict, parse: Callable, what: str):
    if key not in values:
        raise RulesError(f"{at(name, text, section)}: {section}.{key} is missing; it is {what}")
    where = f"{at(name, text, section, key)}: {section}.{key} = {values[key]!r}"
    try:
        return parse(values[key])
    except RulesError as error:
        raise RulesError(f"{where}: {error}") from None
    except (ValueError, TypeError, AttributeError):
        raise RulesError(f"{where} is not {what}") from None


def at(name: str, text: str, section: str, key: str | None = None) -> str:
    """`file:line` of a key, else of its section, else of the file."""
    inside, found = False, None
    for number, line in enumerate(text.splitlines(), 1):
        head = re.match(r"\s*\[+\s*([^\]\s]+)\s*\]", line)
        if head or number == 1:
            inside = bool(head) and head[1] == section
            found = number if inside else found
        if key and inside and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return f"{name}:{number}"
        if key is None and re.match(rf"\s*[\"']?{re.escape(section)}[\"']?\s*=", line):
            found = found or number
    return f"{name}:{found}" if found else name
