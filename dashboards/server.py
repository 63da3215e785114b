"""The pages behind the guard: `streamlit run dashboards/server.py`, which is what `make up` starts.

Here: the guard around Streamlit's server. Not here: the pages (app.py), the guard (dagster_project/guard.py).
"""

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])
if ROOT not in sys.path:  # Streamlit puts this folder on the path, not the repository
    sys.path.insert(0, ROOT)

from starlette.middleware import Middleware  # noqa: E402
from streamlit.starlette import App  # noqa: E402

from dagster_project.guard import Guard  # noqa: E402
from dashboards import entrance  # noqa: E402

# Whatever text of data were taken for Markdown: nothing is loaded from elsewhere. Charts are compiled in the browser (eval).
CSP = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' data: blob:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'"
)

app = App("app.py", middleware=[Middleware(Guard, origins=entrance.origins(), csp=CSP)])
