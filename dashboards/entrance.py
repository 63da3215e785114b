"""Who may come in: nobody is asked, unless .streamlit/secrets.toml has an [auth] section (docs/boards.md).

Here: the one question before any page. Not here: what a page shows; who the identity provider lets in.
"""

from __future__ import annotations

import importlib.util

import streamlit as st
from streamlit.errors import StreamlitSecretNotFoundError


def wanted() -> bool:
    """Whether the secrets name an OpenID Connect provider."""
    try:
        return "auth" in st.secrets
    except StreamlitSecretNotFoundError:
        return False


def require_login() -> None:
    """Let the page run on for a viewer who is logged in, or where no login is set up; else ask and stop."""
    if not wanted():
        return
    if importlib.util.find_spec("authlib") is None:
        st.error("Login is set up, and the package Authlib that it needs is missing: `pip install streamlit[auth]`.", icon=":material/lock:")
        st.stop()
    if not st.user.get("is_logged_in", False):
        st.title("Glasshouse", anchor=False)
        st.caption("These boards are for people who are known here.")
        st.button("Log in", icon=":material/login:", type="primary", on_click=st.login)
        st.stop()
    with st.sidebar:
        st.caption(st.user.get("email") or st.user.get("name") or "logged in")
        st.button("Log out", icon=":material/logout:", type="tertiary", on_click=st.logout)
