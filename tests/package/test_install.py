"""`cmake --install` after a build: the program, the library, its headers, and programs built against them in C and C++, found with CMake and
with pkg-config, linked with either library."""
import glob
import os
import re
import subprocess

import pytest
from conftest import ROOT, run, tool

EMBED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "embed")
WANTED_C = """value hello
pairs 1
ngrams 33
next 12 order 3
scored 4
totals {"token":2,"count":3,"contexts":1}
live 12 3 oov 0
"""
WANTED_CXX = "scanned greeting:en\nnext 12\nlines 1\n"


def library_path(installed):
    return dict(os.environ, LD_LIBRARY_PATH=os.path.join(installed, "lib"))


def check(c, cxx, data, environment):
    """The C program fills a directory, the C++ program reads it."""
    assert run(c, data, env=environment) == WANTED_C
    if cxx:
        assert run(cxx, data, env=environment) == WANTED_CXX


def test_what_is_installed(installed):
    there = sorted(os.path.relpath(os.path.join(base, name), installed) for base, _, names in os.walk(installed) for name in names)
    version = run(os.path.join(installed, "bin", "cheetah-db"), "--version").split()[1]
    minor = ".".join(version.split(".")[:2])
    headers = ["include/cheetah/" + os.path.basename(path) for path in glob.glob(os.path.join(ROOT, "include", "cheetah", "*.h"))]
    assert len(headers) >= 7
    headers.remove("include/cheetah/rados.h")  # of a store that is in no library that is installed
    assert "include/cheetah/rados.h" not in there
    for name in ["bin/cheetah-db", "lib/libcheetah.a", "lib/libcheetah.so", "lib/libcheetah.so." + minor, "lib/libcheetah.so." + version,
                 "lib/pkgconfig/cheetah.pc", "lib/cmake/cheetah/cheetah-config.cmake"] + headers:
        assert name in there, name


def test_the_shared_library_exports_what_the_headers_declare(installed):
    declared = {"cht_ahead"}
    for path in glob.glob(os.path.join(installed, "include", "cheetah", "*.h")):
        text = run("gcc", "-fpreprocessed", "-dD", "-E", "-P", path)
        text = re.sub(r"static inline .*?^}", "", re.sub(r"^#.*", "", text, flags=re.M), flags=re.M | re.S)
        text = re.sub(r"\(\*\w+\)", "", text)
        declared |= set(re.findall(r"\b(cht_\w+)\(", text)) - set(re.findall(r"typedef \w+ (cht_\w+)\(", text))
    exported = {line.split()[2] for line in run("nm", "-D", "--defined-only", os.path.join(installed, "lib", "libcheetah.so")).splitlines()}
    assert exported == declared, "a header without the lines of the others: extern \"C\", visibility push and pop?"


def test_programs_found_by_cmake(installed, tmp_path):
    tool("g++")
    run("cmake", "-S", EMBED, "-B", str(tmp_path / "build"), "-DCMAKE_PREFIX_PATH=" + installed, "-DCMAKE_BUILD_TYPE=Release")
    run("cmake", "--build", str(tmp_path / "build"))
    check(str(tmp_path / "build" / "embed_c"), str(tmp_path / "build" / "embed_cxx"), str(tmp_path / "shared"), os.environ)
    check(str(tmp_path / "build" / "embed_static"), None, str(tmp_path / "static"), os.environ)
    assert "libcheetah" not in run("ldd", str(tmp_path / "build" / "embed_static"))


@pytest.mark.parametrize("static", [False, True])
def test_programs_found_by_pkg_config(installed, tmp_path, static):
    tool("g++")
    environment = dict(os.environ, PKG_CONFIG_PATH=os.path.join(installed, "lib", "pkgconfig"))
    version = run(os.path.join(installed, "bin", "cheetah-db"), "--version").split()[1]
    assert run("pkg-config", "--modversion", "cheetah", env=environment).strip() == version
    flags = run("pkg-config", "--cflags", "cheetah", env=environment).split()
    libraries = run("pkg-config", "--libs", *(["--static"] if static else []), "cheetah", env=environment).split()
    if static:
        libraries = [os.path.join(installed, "lib", "libcheetah.a") if word == "-lcheetah" else word for word in libraries]
    built = []
    for compiler, standard, source in [("gcc", "-std=c17", "main.c"), ("g++", "-std=c++17", "main.cc")]:
        built.append(str(tmp_path / source.replace(".", "_")))
        run(compiler, standard, "-O1", "-Wall", "-Werror", "-o", built[-1], os.path.join(EMBED, source), *flags, *libraries)
    check(built[0], built[1], str(tmp_path / "data"), library_path(installed))


def test_an_installed_tree_can_be_moved(installed, tmp_path):
    """CMake's package and pkg-config's file name no build directory; the program needs nothing of it."""
    for path in glob.glob(os.path.join(installed, "lib", "cmake", "cheetah", "*")) + [os.path.join(installed, "lib", "pkgconfig", "cheetah.pc")]:
        with open(path, encoding="utf-8") as file:
            assert ROOT not in file.read(), path
    said = subprocess.run(["readelf", "-d", os.path.join(installed, "bin", "cheetah-db"), os.path.join(installed, "lib", "libcheetah.so")],
                          capture_output=True, text=True, check=True).stdout
    assert "RUNPATH" not in said and "RPATH" not in said
