"""Models: the ranker's heads over its versions, and what each version was trained on."""

import pandas as pd
import streamlit as st

from dashboards import data, design, frame, lakeside


def body(zone: str) -> None:
    found = lakeside.model_versions(str(data.lake().root))
    if not found:
        st.info(
            "There is no model yet. `make demo` trains one; in Dagster, materialize the asset `ranker` to train the next.",
            icon=":material/eco:",
        )  # fmt: skip
        return
    names = [version["version"] for version in reversed(found)]
    chosen = st.query_params.get("version", names[0])
    chosen = st.selectbox("Version", names, index=names.index(chosen) if chosen in names else 0, width=320)
    st.query_params["version"] = chosen
    one = next(version for version in found if version["version"] == chosen)
    of_version(heads(one))
    over_versions(found, zone)
    versions(found, zone)


def heads(version: dict) -> pd.DataFrame:
    """A row a head: samples, positives, auc, truth_auc, log_loss, calibration."""
    rows = [{"head": name, **values} for name, values in version["metrics"]["heads"].items()]
    columns = ["head", "samples", "positives", "auc", "truth_auc", "log_loss", "calibration"]
    return pd.DataFrame(rows).reindex(columns=columns)


def of_version(rows: pd.DataFrame) -> None:
    left, right = st.columns(2)
    order = list(rows["head"])
    with left:
        chart = design.points(rows, "head", {"auc": "this model", "truth_auc": "the generator's truth"}, "AUC", order, 0.5)
        frame.panel("AUC by head", "auc", chart, rows, "model_heads")
    with right:
        chart = design.points(rows, "head", {"calibration": "predicted / happened"}, "calibration", order, 1.0)
        frame.panel("Calibration by head", "calibration", chart, rows[["head", "calibration"]], "model_calibration")


def over_versions(found: list[dict], zone: str) -> None:
    if len(found) < 2:
        st.caption("With a second version, this page also shows the heads over the versions.")
        return
    rows = pd.concat([heads(version).assign(version=version["version"], time=trained(version)) for version in found])
    rows = data.in_zone(rows, zone)[["time", "version", "head", "auc", "calibration", "log_loss", "samples"]]
    left, right = st.columns(2)
    with left:
        chart = design.time_kinds(rows, "head", "auc", "AUC", form=".4f", axis=".2f", zero=False)
        frame.panel("AUC over versions", "auc", chart, rows, "auc_over_versions")
    with right:
        chart = design.time_kinds(rows, "head", "calibration", "calibration", form=".3f", axis=".1f", zero=False)
        frame.panel("Calibration over versions", "calibration", chart, rows, "calibration_over_versions")


def trained(version: dict) -> pd.Timestamp:
    # A version's name begins with the time of its writing.
    return pd.to_datetime(version["version"][:15], format="%Y%m%dT%H%M%S", utc=True)


def versions(found: list[dict], zone: str) -> None:
    rows = pd.DataFrame(
        {
            "trained": trained(version), "version": version["version"],
            "samples_from": pd.Timestamp(version["config"]["window"][0]),
            "samples_to": pd.Timestamp(version["config"]["window"][1]),
            "held_out_from": pd.Timestamp(version["config"]["cutoff"]),
            "held_out_samples": version["metrics"].get("evaluated_samples"),
            "click_auc": version["metrics"]["heads"].get("click", {}).get("auc"),
            "table_version": version["config"].get("table_version"),
            "code": (version["config"].get("code_version") or "")[:9],
        }
        for version in reversed(found)
    )  # fmt: skip
    frame.sheet("Versions", "model_versions", data.in_zone(rows, zone), "model_versions",
                click_auc=st.column_config.NumberColumn(format="%.4f"))  # fmt: skip


frame.plain_page("Models", "What each head of the ranker has learned, measured on samples it has not seen.", body)
