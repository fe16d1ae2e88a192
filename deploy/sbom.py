#!/usr/bin/python3
"""sbom: what a release consists of, as SPDX 2.3 (JSON): its files with their checksums, and the Debian packages that the program is linked with.

    deploy/sbom.py VERSION DATE PROGRAM FILE ... >sbom.spdx.json       DATE: 2026-11-28; the same input gives the same bytes
"""
import hashlib
import json
import os
import re
import subprocess
import sys


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ, LC_ALL="C.UTF-8")).stdout


def libraries(program):
    """(Debian package, version) of each library that the program names, sorted."""
    found = set()
    paths = dict(re.findall(r"^\s+(\S+) => (\S+)", output("ldd", program), re.M))
    for name in re.findall(r"NEEDED.*\[(.*)\]", output("readelf", "-d", program)):
        path = os.path.realpath(paths[name])
        for place in (path, path[4:] if path.startswith("/usr/") else "/usr" + path):
            owner = subprocess.run(["dpkg-query", "-S", place], capture_output=True, text=True)
            if owner.returncode == 0:
                package = owner.stdout.split(": ")[0].split(",")[0]
                found.add((package.split(":")[0], output("dpkg-query", "-W", "-f", "${Version}", package)))
                break
        else:
            sys.exit("sbom: no package has %s" % path)
    return sorted(found)


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    version, date, program, *files = sys.argv[1:]
    sums = [(os.path.basename(path), sha256(path)) for path in sorted(files, key=os.path.basename)]
    whole = hashlib.sha256("".join(a + b for a, b in sums).encode()).hexdigest()
    me = "SPDXRef-Package-cheetah-db"
    packages = [{
        "SPDXID": me, "name": "cheetah-db", "versionInfo": version, "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
        "licenseConcluded": "Apache-2.0", "licenseDeclared": "Apache-2.0", "copyrightText": "2026 cheetah-db maintainers"}]  # fmt: skip
    relations = [("SPDXRef-DOCUMENT", "DESCRIBES", me)]
    for name, number in libraries(program):
        ref = "SPDXRef-Debian-" + re.sub(r"[^A-Za-z0-9.-]", "-", name)
        packages.append({
            "SPDXID": ref, "name": name, "versionInfo": number, "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
            "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION", "copyrightText": "NOASSERTION",
            "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": "pkg:deb/debian/%s@%s" % (name, number.replace("+", "%2B"))}]})  # fmt: skip
        relations.append((me, "DYNAMIC_LINK", ref))
    made = []
    for number, (name, digest) in enumerate(sums):
        ref = "SPDXRef-File-%d" % number
        made.append({"SPDXID": ref, "fileName": "./" + name, "checksums": [{"algorithm": "SHA256", "checksumValue": digest}],
                     "licenseConcluded": "Apache-2.0", "copyrightText": "2026 cheetah-db maintainers"})  # fmt: skip
        relations.append((ref, "GENERATED_FROM" if not name.endswith((".tar.gz", ".tar.xz")) else "CONTAINED_BY", me))
    document = {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": "cheetah-db-" + version,
        "documentNamespace": "https://b-seed-46d8f036.example/spdx/cheetah-db-%s-%s" % (version, whole),
        "creationInfo": {"created": date + "T00:00:00Z", "creators": ["Organization: cheetah-db maintainers"]},
        "packages": packages, "files": made,
        "relationships": [{"spdxElementId": a, "relationshipType": kind, "relatedSpdxElement": b} for a, kind, b in relations],
    }  # fmt: skip
    json.dump(document, sys.stdout, indent=1, sort_keys=True)
    print()


if __name__ == "__main__":
    main()
