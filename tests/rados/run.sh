#!/bin/bash
# run.sh: starts a mini cluster (cluster.sh), runs a program with CHT_RADOS_CONF set, stops the cluster. Its exit code; 77: not the packages.
#   tests/rados/run.sh PROGRAM [ARGUMENT ...]
# CHT_RADOS_CONF set already: that cluster is used and left as it is. CHT_RADOS_SHELL is the path of cluster.sh for PROGRAM, CHT_RADOS_DIR
# the folder of the cluster: tests kill and start its daemons with them.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ -z "${CHT_RADOS_CONF:-}" ]; then
    for t in ceph-mon ceph-osd ceph rados monmaptool uuidgen; do
        if ! command -v $t >/dev/null; then
            echo "skipped: $t is not installed (deploy/install-deps.sh rados)"
            exit 77
        fi
    done
    dir=$(mktemp -d /tmp/cht-rados-XXXXXX)
    trap '"$here/cluster.sh" stop "$dir"; rm -rf "$dir"' EXIT
    CHT_RADOS_CONF=$(OSDS=${OSDS:-3} SIZE=${SIZE:-2} "$here/cluster.sh" start "$dir")
    export CHT_RADOS_CONF CHT_RADOS_DIR=$dir CHT_RADOS_SHELL=$here/cluster.sh
fi
"$@"
