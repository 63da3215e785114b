"""The Streamlit pages. Here: nothing but what must precede every import of theirs."""

import sys

# altair imports jsonschema, which imports this optional check of IRIs where it is installed (JupyterLab brings it), and
# that builds a grammar for 3.5 s: half of the first page's time. No page validates an IRI. None makes the import fail,
# which jsonschema expects.
sys.modules.setdefault("rfc3987_syntax", None)
