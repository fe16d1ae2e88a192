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

SHIM = os.path.join(PACKAGE, "shim")  # the distribution of the old name


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """The wheel and that of the old name, built from copies of the sources with what Debian has."""
    folder, made = tmp_path_factory.mktemp("wheel"), []
    for number, place in enumerate((PACKAGE, SHIM)):
        source, out = folder / ("source%d" % number), folder / ("wheel%d" % number)
        shutil.copytree(place, source, ignore=shutil.ignore_patterns("__pycache__", "tests", "shim", "*.egg-info", "build"))
        run([sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check", "--wheel", "--outdir", str(out), str(source)])
        (path,) = glob.glob(str(out / "*.whl"))
        made.append(path)
    return made


@pytest.fixture(scope="module")
def wheel(wheels):
    return wheels[0]


def environment(folder, *wheels):
    """The python of a new environment with these wheels."""
    run([sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", str(folder)])
    python = str(folder / "bin" / "python")
    run([sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", *wheels])
    return python


def run(command, **more):
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, **more)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_what_the_wheel_holds(wheel):
    assert re.fullmatch(r"cheetah_http-[0-9.]+-py3-none-any\.whl", os.path.basename(wheel))
    have = {name for name in zipfile.ZipFile(wheel).namelist() if not ".dist-info/" in name}
    source = os.path.join(PACKAGE, "src")
    want = {os.path.relpath(path, source) for path in glob.glob(source + "/cheetah_http/**/*.py", recursive=True)}
    assert have == want | {"cheetah_http/py.typed"}
    metadata = next(n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("METADATA"))
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    assert "Requires-Python: >=3.9" in text and re.findall("Requires-Dist: (.*)", text) == [
        "httpx (<1,>=0.23) ; extra == 'httpx'", "numpy ; extra == 'numpy'", "zstandard ; extra == 'zstd'"]  # nothing without an extra


def test_the_wheel_in_an_environment_of_its_own(wheel, tmp_path, db):
    python = environment(tmp_path / "env", wheel)
    code = """
import cheetah_http, sys
from cheetah_http.dbslm import CheetahClient
assert cheetah_http.__file__.startswith(sys.prefix), cheetah_http.__file__
with cheetah_http.Client(%r, database=%r) as db:
    assert db.read(db.insert(b"from the wheel")) == b"from the wheel"
""" % (db.url, db.database)
    run([python, "-c", code], cwd=str(tmp_path))


# ---- beside DB-SLM, whose own client is a package called cheetah_db


@pytest.fixture
def another(tmp_path):
    """A folder with a package cheetah_db that is not ours, as DB-SLM has one; with modules that are called like ours."""
    package = tmp_path / "binder" / "cheetah_db"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .client import Client\nfrom .errors import CheetahError\n")
    (package / "client.py").write_text("class Client:\n    def who(self):\n        return 'theirs'\n")
    (package / "errors.py").write_text("class CheetahError(Exception):\n    pass\n")
    return str(package.parent)


@pytest.mark.parametrize("order", ["theirs first", "ours first"])
def test_beside_another_package_called_cheetah_db(wheel, another, order, tmp_path, db):
    """DB-SLM puts the folder of its client first on sys.path; both work, whichever is imported first, and neither is the other."""
    python = environment(tmp_path / "env", wheel)
    imports = ["import cheetah_db, cheetah_db.errors", "import cheetah_http, cheetah_http.errors, cheetah_http.dbslm"]
    code = """
import sys
sys.path.insert(0, %r)
%s
assert cheetah_db.__file__.startswith(%r) and cheetah_http.__file__.startswith(sys.prefix)
assert cheetah_db.Client().who() == "theirs" and cheetah_db.Client is not cheetah_http.Client
assert cheetah_db.errors is not cheetah_http.errors and not issubclass(cheetah_http.CheetahError, cheetah_db.CheetahError)
with cheetah_http.Client(%r, database=%r) as db:
    assert db.read(db.insert(b"ours")) == b"ours"
""" % (another, "\n".join(imports if order == "theirs first" else imports[::-1]), another, db.url, db.database)
    run([python, "-c", code], cwd=str(tmp_path))
    assert not any("cheetah_db" in name for name in zipfile.ZipFile(wheel).namelist())


def test_the_old_name(wheels, tmp_path, db):
    """The optional second wheel: the same modules and classes under the old name, and a DeprecationWarning."""
    python = environment(tmp_path / "env", *wheels)
    code = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import cheetah_db
    from cheetah_db import Client, payloads
    from cheetah_db.dbslm import CheetahHotPathAdapter
    from cheetah_db.errors import NotFound
    import cheetah_db.dbslm.types, cheetah_db._sync.client
assert [w.category for w in caught] == [DeprecationWarning] and "cheetah_http" in str(caught[0].message), caught
import cheetah_http, cheetah_http.dbslm
assert Client is cheetah_http.Client and NotFound is cheetah_http.NotFound and payloads is cheetah_http.payloads
assert CheetahHotPathAdapter is cheetah_http.dbslm.CheetahHotPathAdapter and cheetah_db.__all__ == cheetah_http.__all__
with Client(%r, database=%r) as db:
    assert db.read(db.insert(b"old name")) == b"old name"
""" % (db.url, db.database)
    run([python, "-c", code], cwd=str(tmp_path))
    names = zipfile.ZipFile(wheels[1]).namelist()
    assert {name for name in names if ".dist-info/" not in name} == {"cheetah_db/__init__.py", "cheetah_db/py.typed"}


def test_the_old_name_has_every_module():
    """All that the package had when it was renamed; dbslm, net, columns and changes came since, under the new name only."""
    import ast

    with open(os.path.join(SHIM, "cheetah_db", "__init__.py"), encoding="utf-8") as file:
        tree = ast.parse(file.read())
    (names,) = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "_MODULES"]
    source = os.path.join(PACKAGE, "src", "cheetah_http")
    have = {os.path.relpath(path, source)[:-3].replace(os.sep, ".") for path in glob.glob(source + "/**/*.py", recursive=True)}
    have = {name[: -len(".__init__")] if name.endswith("__init__") else name for name in have} - {"__init__", ""}
    assert set(names) <= have and {name for name in have if not name.startswith(("dbslm.", "net")) and not name.endswith(("columns", "changes"))} <= set(names)


def test_the_version_is_one():
    import cheetah_http

    for place in (PACKAGE, SHIM):
        with open(os.path.join(place, "pyproject.toml"), encoding="utf-8") as file:
            assert 'version = "%s"' % cheetah_http.__version__ in file.read(), place
    assert "cheetah-http==%s" % cheetah_http.__version__ in open(os.path.join(SHIM, "pyproject.toml"), encoding="utf-8").read()


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
