"""Set the project up in .venv: Python packages, Java, the Delta jar, Chromium, the compiled fold.

Here: what must exist before `glasshouse` can start. Not here: versions (pyproject.toml and the constraints beside this
file decide those). Only the standard library is imported, because nothing is installed when this runs.

Idempotent: a stamp in .venv holds a hash of every file that decides what is installed; when it matches, nothing is done.
"""

import argparse
import ctypes.util
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".glasshouse-setup"
JAR_DIR = VENV / "share" / "glasshouse" / "jars"

UV = "uv==0.13.9"  # resolves and installs five times faster than pip, and can override one bad requirement
DEBIAN_12_PYTHON = "3.11.2"  # the oldest Python this runs on; some packages ask for a later 3.11
JAR_SOURCE = "jsoniq==3.0.2"  # the one PyPI package that carries the classes of delta-spark_2.13 4.0.0
DELTA_JAR = "delta-spark_2.13-4.0.0-slim.jar"
JAR_PREFIXES = ("io/delta/", "org/apache/spark/", "com/databricks/", "scala/collection/parallel/")
SERVICE = "META-INF/services/org.apache.spark.sql.sources.DataSourceRegister"


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def run(*command: str, **kwargs) -> None:
    """Run a command; on failure say which one and stop, without a Python traceback on top of its own message."""
    try:
        subprocess.run(command, check=True, **kwargs)
    except subprocess.CalledProcessError as error:
        sys.exit(f"setup: `{' '.join(command)}` failed with status {error.returncode}; its output is above.")
    except FileNotFoundError:
        sys.exit(f"setup: `{command[0]}` is not on the PATH.")


def fingerprint(flavour: str) -> str:
    digest = hashlib.sha256(flavour.encode())
    for path in (Path(__file__), ROOT / "pyproject.toml", constraints(flavour), ROOT / ".ci" / "overrides.txt"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def constraints(flavour: str) -> Path:
    return ROOT / ".ci" / ("constraints-gpu.txt" if flavour == "gpu" else "constraints.txt")


def apt_install(packages: list[str], needed_for: str) -> None:
    """Install Debian packages when root; otherwise name the command to run and stop."""
    command = f"apt-get install -y --no-install-recommends {' '.join(packages)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"setup: {needed_for} is missing. Install it, then start again:\n    sudo {command}")
    say(f"{needed_for} is missing, installing {' '.join(packages)}")
    quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
    run("apt-get", "update", "-qq", **quiet)
    run(*command.split(), "-qq", **quiet)


def java_major() -> int:
    """Major version of the `java` that Spark would start, 0 if there is none."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if not java or not Path(java).exists():
        return 0
    text = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
    version = text.split('"')[1] if '"' in text else "0"
    return int(version.split(".")[0])


def make_venv() -> None:
    if PYTHON.exists() and subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return
    say("creating .venv")
    try:
        import ensurepip  # noqa: F401  (Debian ships it apart, in python3-venv)
    except ImportError:
        apt_install(["python3-venv"], "Python's venv module")
        # This interpreter has already looked for ensurepip and remembers that it is not there: start afresh.
        os.execv(sys.executable, [sys.executable, *sys.argv])
    venv.EnvBuilder(with_pip=True, clear=VENV.exists()).create(VENV)


def pip_config(key: str) -> str:
    """pip's own setting, from its environment or its files, so that uv looks where pip would."""
    done = subprocess.run([PYTHON, "-m", "pip", "config", "list"], capture_output=True, text=True)
    values = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    for scope in (":env:", "install", "global"):
        if f"{scope}.{key}" in values:
            return " ".join(values[f"{scope}.{key}"].strip("'\"").split())
    return ""


def uv_environment() -> dict[str, str]:
    """Hand pip's index settings on: uv reads neither pip's files nor its variables."""
    env = dict(os.environ)
    for key, name in (("find-links", "UV_FIND_LINKS"), ("index-url", "UV_DEFAULT_INDEX"), ("cert", "SSL_CERT_FILE")):
        if value := pip_config(key):
            env.setdefault(name, value)
    env.setdefault("UV_HTTP_TIMEOUT", "300")
    return env


def uv(flavour: str, *command: str) -> None:
    """Run uv with the project's pins: the constraints, and on the CPU the override of fbgemm-gpu."""
    overrides = [] if flavour == "gpu" else ["--override", str(ROOT / ".ci" / "overrides.txt")]
    run(str(VENV / "bin" / "uv"), "pip", *command, "--quiet", *overrides, env=uv_environment(), cwd=ROOT)


def install_packages(flavour: str) -> None:
    say(f"installing Python packages ({flavour}); this is the long part, a few minutes")
    run(str(PYTHON), "-m", "pip", "install", "-q", UV)
    uv(
        # Compiled now: where PYTHONDONTWRITEBYTECODE is set, every start of Dagster would compile its imports anew (2 s).
        flavour, "install", "--compile-bytecode", "--python", str(PYTHON), "--constraint", str(constraints(flavour)),
        "--editable", f"{ROOT}[{flavour},test]",
    )  # fmt: skip


def lock() -> None:
    """Resolve pyproject.toml anew into both constraints files."""
    for flavour in ("cpu", "gpu"):
        target = constraints(flavour)
        uv(
            flavour, "compile", "pyproject.toml", "--extra", flavour, "--extra", "test", "--upgrade",
            "--python-version", DEBIAN_12_PYTHON, "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "-o", str(target),
        )  # fmt: skip
        # The CPU wheel's local version is found only where its wheel is offered; the plain version matches it anyway.
        target.write_text(target.read_text().replace("+cpu", ""))
        say(f"wrote {target.relative_to(ROOT)}")


def make_delta_jar() -> None:
    """Cut the Delta classes out of RumbleDB's fat jar, and give back the service line that it lost."""
    target = JAR_DIR / DELTA_JAR
    if target.exists():
        return
    say("making the Delta jar")
    JAR_DIR.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        run(str(PYTHON), "-m", "pip", "download", "-q", "--no-deps", JAR_SOURCE, "-d", folder)
        wheel = next(Path(folder).glob("jsoniq-*.whl"))
        with zipfile.ZipFile(wheel) as package:
            fat = Path(package.extract("jsoniq/jars/rumbledb-3.0.0.jar", folder))
        part = target.with_suffix(".part")
        with zipfile.ZipFile(fat) as source, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as slim:
            for name in source.namelist():
                wanted = name.startswith("error/") or (name.endswith(".class") and name.startswith(JAR_PREFIXES))
                if wanted and not name.endswith("/"):
                    slim.writestr(name, source.read(name))
            slim.writestr(SERVICE, "org.apache.spark.sql.delta.sources.DeltaDataSource\n")
        part.rename(target)


def ensure_java() -> None:
    if java_major() not in (17, 21):
        apt_install(["openjdk-17-jre-headless"], "Java 17 (Spark needs it)")


def ensure_openmp() -> None:
    if not ctypes.util.find_library("gomp"):
        apt_install(["libgomp1"], "GNU's OpenMP library (LightGBM needs it)")


def ensure_chromium() -> None:
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        apt_install(["chromium", "chromium-driver"], "Chromium with its driver (the page tests need it)")


def warm_up() -> None:
    """Compile the labeler once, so that the first command of a person, or the first tests, do not wait for it."""
    say("compiling the labeler")
    run(str(PYTHON), "-m", "assets.attribution.warm", cwd=ROOT)


def is_warm() -> bool:
    """Whether this checkout has been compiled for: numba's cache lies beside its files, not in .venv."""
    return bool(os.environ.get("NUMBA_CACHE_DIR")) or any((ROOT / "assets" / "attribution" / "__pycache__").glob("fold._fold-*.nbi"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", action="store_true", help="install the CUDA builds of torch, torchrec and fbgemm")
    parser.add_argument("--browser", action="store_true", help="also Chromium, for the tests of the pages")
    parser.add_argument("--lock", action="store_true", help="resolve pyproject.toml into the constraints, and stop")
    arguments = parser.parse_args()
    if arguments.lock:
        return lock()
    flavour = "gpu" if arguments.gpu else "cpu"
    ensure_java()
    ensure_openmp()
    if arguments.browser:
        ensure_chromium()
    if STAMP.exists() and STAMP.read_text() == fingerprint(flavour):
        if not is_warm():
            warm_up()
        return
    make_venv()
    install_packages(flavour)
    make_delta_jar()
    warm_up()
    STAMP.write_text(fingerprint(flavour))
    say("done")


if __name__ == "__main__":
    main()
