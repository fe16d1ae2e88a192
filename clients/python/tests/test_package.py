"""The package: it builds as a wheel without a network, installs, imports, and its README is true."""
import glob
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import PACKAGE, url_of


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the sources with what Debian has."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__", "tests", "*.egg-info", "build"))
    run([sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder), str(source)])
    (path,) = glob.glob(str(folder / "*.whl"))
    return path


def run(command, **more):
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, **more)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_what_the_wheel_holds(wheel):
    assert re.fullmatch(r"cheetah_db-[0-9.]+-py3-none-any\.whl", os.path.basename(wheel))
    have = {name for name in zipfile.ZipFile(wheel).namelist() if not ".dist-info/" in name}
    source = os.path.join(PACKAGE, "src")
    want = {os.path.relpath(path, source) for path in glob.glob(source + "/cheetah_db/**/*.py", recursive=True)}
    assert have == want | {"cheetah_db/py.typed"}
    metadata = next(n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("METADATA"))
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    assert "Requires-Python: >=3.9" in text and re.findall("Requires-Dist: (.*)", text) == ["httpx (<1,>=0.23)"]


def test_the_wheel_in_an_environment_of_its_own(wheel, tmp_path, db):
    run([sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", str(tmp_path / "env")])
    python = str(tmp_path / "env" / "bin" / "python")
    run([sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", wheel])
    code = """
import cheetah_db, sys
from cheetah_db.dbslm import CheetahClient
assert cheetah_db.__file__.startswith(sys.prefix), cheetah_db.__file__
with cheetah_db.Client(%r, database=%r) as db:
    assert db.read(db.insert(b"from the wheel")) == b"from the wheel"
""" % (db.url, db.database)
    run([python, "-c", code], cwd=str(tmp_path))


def test_the_version_is_one():
    import cheetah_db

    with open(os.path.join(PACKAGE, "pyproject.toml"), encoding="utf-8") as file:
        assert 'version = "%s"' % cheetah_db.__version__ in file.read()


def test_the_examples_of_the_readme(launch):
    """Each python block runs, in order, in one namespace; 8080 is the port of a fresh server. `# -> x` behind an expression
    is what it must give."""
    server = launch("--durability", "os")
    with open(os.path.join(PACKAGE, "README.md"), encoding="utf-8") as file:
        text = file.read()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)
    assert len(blocks) >= 6
    names = {"__name__": "__main__"}
    checks = 0
    for block in blocks:
        block = block.replace("http://127.0.0.1:8080", url_of(server)).replace('"127.0.0.1", 8080', '"127.0.0.1", %d' % server.port)
        lines = []
        for line in block.splitlines():
            found = re.match(r"(\s*)(\S.*?)\s+# -> (.*)$", line)
            if found:
                checks += 1
                indent, expression, want = found.groups()
                line = "%sassert (%s) == (%s), %r %% (%s,)" % (indent, expression, want, line.replace("%", "%%") + ": %r", expression)
            lines.append(line)
        exec(compile("\n".join(lines), "README.md", "exec"), names)
    assert checks >= 10
