"""Who may come in: nobody is asked, unless the secrets file names a login by [auth] (docs/boards.md). In doubt, nobody comes in.

Here: the one question before any page. Not here: what a page shows; who the identity provider lets in; which other web pages may ask
(dagster_project/guard.py).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from difflib import SequenceMatcher
from pathlib import Path

import streamlit as st
from streamlit import config

SECTION = "auth"
KEYS = ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")
WORDS = (*(key.replace("_", "") for key in KEYS), "authentication", "authorization", "login", "oauth", "oauth2", "oidc", "openid", "sso")
COOKIE_SECRET = 16  # characters at least: who guesses it signs a cookie for any name
OWN = Path(__file__).parent / ".streamlit" / "secrets.toml"  # nothing but a login is ever set up here
_asked = False  # once this process has asked for a login, it never stops to


class Closed(Exception):
    """A login is set up, or may have been meant, and cannot be asked for; the message says what to mend."""


def secrets_files() -> list[Path]:
    """Where Streamlit looks for secrets, in its order."""
    return [Path(path) for path in config.get_option("secrets.files")]


def section() -> Mapping[str, str] | None:
    """The [auth] section, checked; None where no login is set up. Raises Closed."""
    global _asked
    found, present = None, False
    for path in secrets_files():
        there = _read(path)
        present = present or there is not None
        if there is not None:
            found = _section_of(path, there) or found
    if found is None:  # what a server was given without a file
        found = _section_of(Path("st.secrets"), _merged(present))
    if found is None and _asked:
        raise Closed("the secrets file that set up the login is gone or no longer has [auth]; put it back, or start the pages anew")
    _asked = _asked or found is not None
    if found is not None:
        _check(found)
    return found


def _read(path: Path) -> Mapping | None:
    """A secrets file's content; None where there is none. Raises Closed for one that cannot be read."""
    import tomllib

    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Closed(f"{path}: {_first_line(error)}; give the pages the right to read it") from error
    mend = "mend it, or remove it where no login is wanted"
    try:
        if path.suffix != ".toml":  # a folder with a secret a file, as Kubernetes mounts them
            return st.secrets.to_dict()
        if not path.is_file():
            raise Closed(f"{path} is no file that can be read; {mend}")
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except (OSError, ValueError, RecursionError, st.errors.Error) as error:
        raise Closed(f"{path} cannot be read ({_first_line(error)}); {mend}") from error


def _merged(present: bool) -> Mapping:
    """What Streamlit itself holds of all secrets. Raises Closed where it cannot read what is there."""
    try:
        return st.secrets.to_dict()
    except (OSError, ValueError, st.errors.Error) as error:
        if present:
            raise Closed(f"Streamlit cannot read the secrets: {_first_line(error)}") from error
        return {}


def _section_of(path: Path, content: Mapping) -> Mapping | None:
    """[auth] of a file. Raises Closed where it looks as if one was meant."""
    value = content.get(SECTION)
    if value is False:  # said in so many words
        return None
    if SECTION in content:
        if not isinstance(value, Mapping) or not value:
            raise Closed(f"{path}: [{SECTION}] is empty or no section; it needs {', '.join(KEYS)}")
        return value
    if meant := [name for name in content if _looks_like_login(name, content[name])]:
        raise Closed(f"{path}: the section of a login is called [{SECTION}], not [{meant[0]}]; write `{SECTION} = false` for no login")
    if path.resolve() == OWN.resolve():
        raise Closed(f"{path} is there and has no [{SECTION}] section; add it, or remove the file where no login is wanted")
    return None


def _looks_like_login(name: str, value: object) -> bool:
    plain = "".join(character for character in name.lower() if character.isalnum())
    keys = isinstance(value, Mapping) and len(set(KEYS) & {str(key).strip().lower() for key in value}) > 1
    return keys or plain in WORDS or SequenceMatcher(None, plain, SECTION).ratio() >= 0.75


def _check(found: Mapping) -> None:
    missing = [key for key in KEYS if not isinstance(found.get(key), str) or not found[key].strip()]
    if missing:
        raise Closed(f"[{SECTION}] of the secrets file lacks {', '.join(missing)}")
    if len(found["cookie_secret"]) < COOKIE_SECRET:
        raise Closed(f"cookie_secret in [{SECTION}] is short; draw one of {COOKIE_SECRET} characters at least, like `openssl rand -hex 32`")
    if importlib.util.find_spec("authlib") is None:
        raise Closed("the package Authlib that a login needs is missing: `pip install streamlit[auth]`")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def require_login() -> None:
    """Let the page run on for a viewer who is logged in, or where no login is set up; else ask, or say what is broken, and stop."""
    from dashboards import design

    try:
        wanted = section() is not None
    except Closed as error:
        st.error(f"The login is not in order, so nobody may come in: {design.plain(str(error), 600)}.", icon=":material/lock:")
        st.stop()
    if not wanted:
        return
    if st.user.get("is_logged_in", False) is not True:
        st.title("Glasshouse", anchor=False)
        st.caption("These boards are for people who are known here.")
        st.button("Log in", icon=":material/login:", type="primary", on_click=st.login)
        st.stop()
    with st.sidebar:
        st.caption(design.plain(str(st.user.get("email") or st.user.get("name") or "logged in")))
        st.button("Log out", icon=":material/logout:", type="tertiary", on_click=st.logout)


def origins() -> tuple[str, ...]:
    """Addresses of reverse proxies under which the pages answer: the setting's, and where the login sends people back to."""
    from dagster_project import guard, settings

    found: tuple[str, ...] = ()
    try:
        found = settings.load().origins
    except settings.SettingsError:
        pass  # each page says so
    try:
        login = section()
        return (*found, guard.origin(login["redirect_uri"].removesuffix("/oauth2callback"))) if login else found
    except (Closed, ValueError):
        return found
