"""A Streamlit page run by AppTest, as a visitor with a fresh cache sees it. Not here: a page in a browser (browser.py)."""

from pathlib import Path

DASHBOARDS = Path(__file__).resolve().parents[1] / "dashboards"
VIEWS = DASHBOARDS / "views"


def run(file, query):
    """The page after its first run. query: the link's parameters. Fails where the page shows an exception."""
    import streamlit as st
    from streamlit.testing.v1 import AppTest

    st.cache_resource.clear()
    st.cache_data.clear()
    app = AppTest.from_file(str(file), default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception, app.exception
    return app
