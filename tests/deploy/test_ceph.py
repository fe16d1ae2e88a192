"""deploy/ceph: parsed, and held against the program's options, each other and the README. On a cluster: tests/rados/cephx.sh."""
import re

import yaml

from conftest import in_deploy, run, tool
from test_manifests import known_variables, text_of


def objects():
    return {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(text_of("deploy", "ceph", "kubernetes.yaml"))}


def test_kubernetes():
    found = objects()
    assert len(found) == 6 and all(o["metadata"]["namespace"] == "rook-ceph" for o in found.values()), "Rook's secrets are there"
    template = found["Deployment", "cheetah-db"]["spec"]["template"]
    pod, (container,), (init,) = template["spec"], template["spec"]["containers"], template["spec"]["initContainers"]
    env = {e["name"]: e["value"] for e in container["env"]}
    known_variables(env)
    assert all(isinstance(v, str) for v in env.values())
    secrets = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in init["env"]}
    assert secrets == {"MON_HOST": {"name": "rook-ceph-config", "key": "mon_host"},
                       "KEY": {"name": "rook-ceph-client-" + env["CHEETAH_RADOS_ID"], "key": env["CHEETAH_RADOS_ID"]}}
    assert ("CephBlockPool", env["CHEETAH_RADOS_POOL"]) in found and ("CephClient", env["CHEETAH_RADOS_ID"]) in found
    mounts = {m["name"]: m["mountPath"] for c in (container, init) for m in c["volumeMounts"]}
    assert env["CHEETAH_RADOS_CONF"].startswith(mounts["ceph"] + "/") and env["CHEETAH_TOKENS"].startswith(mounts["tokens"] + "/")
    assert set(mounts) == {v["name"] for v in pod["volumes"]}
    for selector in (found["Service", "cheetah-db"]["spec"]["selector"],
                     found["PodDisruptionBudget", "cheetah-db"]["spec"]["selector"]["matchLabels"],
                     found["NetworkPolicy", "cheetah-db"]["spec"]["podSelector"]["matchLabels"],
                     found["Deployment", "cheetah-db"]["spec"]["selector"]["matchLabels"]):
        assert selector and selector.items() <= template["metadata"]["labels"].items()
    for c in (container, init):
        assert c["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert int(env["CHEETAH_DRAIN_SECONDS"]) < pod["terminationGracePeriodSeconds"] / 2


def test_the_same_rights_everywhere():
    caps = objects()["CephClient", "cheetah"]["spec"]["caps"]
    pool = "cheetah"
    script = text_of("deploy", "ceph", "user.sh")
    assert "mon '%s' osd \"%s\"" % (caps["mon"], caps["osd"].replace("pool=" + pool, "pool=$POOL")) in script
    readme = text_of("deploy", "ceph", "README.md")
    assert "mon '%s'" % caps["mon"] in readme and "osd '%s'" % caps["osd"] in readme


def test_compose_and_image():
    compose = yaml.safe_load(text_of("deploy", "ceph", "compose.yaml"))
    server = compose["services"]["cheetah"]
    known_variables(server["environment"])
    assert all(isinstance(v, str) for v in server["environment"].values()), "compose takes strings"
    assert server["user"] == "10001:10001" and server["read_only"] and server["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in server["ports"]), "anonymous: this machine only"
    image = text_of(*server["build"]["dockerfile"].split("/"))
    known_variables(re.findall(r"(CHEETAH_[A-Z_]+)=", image.replace("-DCHEETAH_TESTS", "").replace("-DCHEETAH_RADOS=ON", "")))
    copied, here = [set(re.findall(r"^COPY (?!--from)(.+?) \S+$", t, re.M)) for t in (image, text_of("Dockerfile"))]
    assert copied == here, "as the Dockerfile at the top, but for librados"


def test_alerts():
    program = tool("promtool")
    text = run(program, "test", "rules", "alerts_test.yml", cwd=in_deploy("ceph"))
    assert "SUCCESS" in text and "FAILED" not in text
    rules = [r for g in yaml.safe_load(text_of("deploy", "ceph", "alerts.yml"))["groups"] for r in g["rules"]]
    cases = [c for t in yaml.safe_load(text_of("deploy", "ceph", "alerts_test.yml"))["tests"] for c in t["alert_rule_test"]]
    for rule in rules:
        assert any(c["alertname"] == rule["alert"] and c["exp_alerts"] for c in cases), "%s never fires in a test" % rule["alert"]
        assert "| `%s` |" % rule["alert"] in text_of("deploy", "ceph", "README.md")
