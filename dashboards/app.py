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

st.set_page_config(page_title="Glasshouse", page_icon="🌿", layout="wide")
st.navigation(
    [
        st.Page("views/overview.py", title="Overview", icon=":material/monitoring:", url_path="overview", default=True),
        st.Page("views/funnel.py", title="Attribution funnel", icon=":material/filter_alt:", url_path="funnel"),
    ],
    position="top",
).run()
