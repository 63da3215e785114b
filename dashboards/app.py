"""The pages' entrance: `streamlit run dashboards/app.py`.

Here: which pages there are. Not here: what they show (views/), the frame around them (frame.py).

The folder is not called pages/: beside a folder of that name Streamlit runs a page's file without this one when a link
opens it first.
"""

import sys
from pathlib import Path

import streamlit as st

ROOT = str(Path(__file__).resolve().parents[1])
if ROOT not in sys.path:  # Streamlit puts this folder on the path, not the repository
    sys.path.insert(0, ROOT)

from dashboards import entrance  # noqa: E402

st.set_page_config(page_title="Glasshouse", page_icon="🌿", layout="wide")
entrance.require_login()
st.navigation(
    [
        st.Page("views/overview.py", title="Overview", icon=":material/monitoring:", default=True),
        st.Page("views/funnel.py", title="Attribution funnel", icon=":material/filter_alt:", url_path="funnel"),
        st.Page("views/attribution.py", title="Attribution explorer", icon=":material/explore:", url_path="attribution"),
        st.Page("views/revenue.py", title="Revenue", icon=":material/payments:", url_path="revenue"),
        st.Page("views/spam.py", title="Spam", icon=":material/gpp_maybe:", url_path="spam"),
        st.Page("views/quality.py", title="Label quality", icon=":material/fact_check:", url_path="quality"),
        st.Page("views/backfills.py", title="Backfills", icon=":material/history:", url_path="backfills"),
        st.Page("views/models.py", title="Models", icon=":material/model_training:", url_path="models"),
        st.Page("views/health.py", title="Health", icon=":material/monitor_heart:", url_path="health"),
    ],
    position="top",
).run()
