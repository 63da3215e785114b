"""Models: the ranker's heads over its versions, which version serves and why, and what each was trained on."""

import zoneinfo

import pandas as pd
import streamlit as st

from dashboards import data, design, frame, lakeside

MOVES = ("promote", "rollback")
GATE = {True: "passed the gate", False: "refused by the gate"}
VERDICT = ["head", "positives", "auc", "auc_serving", "auc_error", "log_loss", "log_loss_serving", "calibration", "calibration_serving",
           "verdict"]  # fmt: skip


def body(zone: str) -> None:
    found = lakeside.model_versions(str(data.lake().root))
    if not found:
        st.info(
            "There is no model yet. `make demo` trains one; in Dagster, materialize the asset `ranker` to train the next.",
            icon=":material/eco:",
        )  # fmt: skip
        return
    past = lakeside.model_history(str(data.lake().root))
    serves = next((entry["version"] for entry in reversed(past) if entry["action"] in MOVES), None)
    names = [version["version"] for version in reversed(found)]
    chosen = st.query_params.get("version", serves if serves in names else names[0])
    if chosen not in names:
        st.warning(f"No version is called {design.plain(chosen)}; this is the newest one.", icon=":material/search_off:")
    words = {name: f"{name} · serves" if name == serves else name for name in names}
    chosen = st.selectbox("Version", names, index=names.index(chosen) if chosen in names else 0, format_func=words.get, width=360)
    st.query_params["version"] = chosen
    told(serves, past, zone)
    one = next(version for version in found if version["version"] == chosen)
    of_version(heads(one))
    verdict(chosen, past)
    over_versions(found, serves, zone)
    history(past, zone)
    versions(found, past, serves, zone)


def told(serves: str | None, past: list[dict], zone: str) -> None:
    """Which version serves, since when, why."""
    if serves is None:
        st.info("No version serves yet. One does once it has passed the check `good_enough_to_promote` in Dagster, "
                "or by `glasshouse ranker promote VERSION`.", icon=":material/eco:")  # fmt: skip
        return
    entry = next(one for one in reversed(past) if one["action"] in MOVES)
    at = pd.Timestamp(entry["at"]).tz_convert(zoneinfo.ZoneInfo(zone))
    why = design.plain(f"({entry['action']} by {entry['by']}: {entry['why']})", 600)
    st.markdown(f"**{design.plain(serves)}** serves since {at:%Y-%m-%d %H:%M:%S} {zone} {why}.")


def verdict(chosen: str, past: list[dict]) -> None:
    """What the gate said last of the version."""
    found = next((one for one in reversed(past) if one["action"] == "checked" and one["version"] == chosen), None)
    rows = pd.DataFrame(found["heads"]).reindex(columns=VERDICT) if found else pd.DataFrame(columns=VERDICT)
    note = ""
    if found:
        beside = f"beside {found['compared_with']}" if found["compared_with"] else "; ".join(found["notes"])
        said = "passed" if found["passed"] else f"refused for {len(found['reasons'])} reasons"
        note = f"{said}, {beside}, on {found['samples']:,} samples of {found['held_out'][0][:16]} to {found['held_out'][1][:16]} UTC"
        note = design.plain(note, 600)
    if found and not found["compared_with"]:  # nothing stands beside it
        rows = rows.dropna(axis="columns", how="all")
    digits = {name: st.column_config.NumberColumn(format="%.4f") for name in VERDICT if name not in ("head", "positives", "verdict")}
    frame.sheet("The gate's verdict", "model_verdict", rows, "model_verdict", note=note,
                empty="This version was not checked.", **digits)  # fmt: skip


def history(past: list[dict], zone: str) -> None:
    rows = pd.DataFrame([
        {"at": pd.Timestamp(one["at"]), "what": one["action"] if one["action"] != "checked" else GATE[one["passed"]],
         "version": one["version"], "before": one["before"], "by": one["by"], "why": "; ".join(one.get("reasons", [])) or one["why"]}
        for one in reversed(past)
    ], columns=["at", "what", "version", "before", "by", "why"])  # fmt: skip
    rows["at"] = pd.to_datetime(rows["at"], utc=True)
    frame.sheet("Which version served", "model_history", data.in_zone(rows, zone), "model_history", empty="Nothing was promoted yet.")


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


def over_versions(found: list[dict], serves: str | None, zone: str) -> None:
    if len(found) < 2:
        st.caption("With a second version, this page also shows the heads over the versions.")
        return
    rows = pd.concat([heads(version).assign(version=version["version"], time=trained(version)) for version in found])
    rows = data.in_zone(rows, zone)[["time", "version", "head", "auc", "calibration", "log_loss", "samples"]]
    left, right = st.columns(2)
    with left:
        chart = design.time_kinds(rows, "head", "auc", "AUC", form=".4f", axis=".2f", zero=False)
        frame.panel("AUC over versions", "auc", marked(chart, rows, serves), rows, "auc_over_versions",
                    note="The line marks the version that serves." if serves in set(rows["version"]) else "")  # fmt: skip
    with right:
        chart = design.time_kinds(rows, "head", "calibration", "calibration", form=".3f", axis=".1f", zero=False)
        frame.panel("Calibration over versions", "calibration", marked(chart, rows, serves), rows, "calibration_over_versions")


def marked(chart, rows: pd.DataFrame, serves: str | None):
    """The chart with a line at the version that serves."""
    times = rows.loc[rows["version"] == serves, "time"]
    return chart if times.empty else design.with_moment(chart, times.iloc[0], f"serves: {serves}")


def trained(version: dict) -> pd.Timestamp:
    # A version's name begins with the time of its writing.
    return pd.to_datetime(version["version"][:15], format="%Y%m%dT%H%M%S", utc=True)


def versions(found: list[dict], past: list[dict], serves: str | None, zone: str) -> None:
    gate = {one["version"]: GATE[one["passed"]] for one in past if one["action"] == "checked"}
    rows = pd.DataFrame(
        {
            "trained": trained(version), "version": version["version"], "serves": version["version"] == serves,
            "gate": gate.get(version["version"], "not checked"),
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
