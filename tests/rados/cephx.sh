#!/bin/bash
# cephx.sh: the rights of deploy/ceph/user.sh are enough, and no more: a cluster with keys, the tests of the store as that user, and what it may not do.
#   tests/rados/cephx.sh build/rados/tests/rados/test_rados
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d /tmp/cht-cephx-XXXXXX)
trap '"$here/cluster.sh" stop "$dir"; rm -rf "$dir"' EXIT
admin=$(AUTH=cephx OSDS=2 BLOCK=1G "$here/cluster.sh" start "$dir")
CEPH_CONF=$admin POOL=cheetah PGS=16 SIZE=2 MIN_SIZE=1 "$here/../../deploy/ceph/user.sh" "$dir/cheetah.keyring" >/dev/null
sed "s|^keyring = .*/keyring$|keyring = $dir/cheetah.keyring|" "$admin" >"$dir/client.conf"
CHT_RADOS_CONF=$dir/client.conf CHT_RADOS_ID=cheetah CHT_TEST_OPS=${CHT_TEST_OPS:-500} "$1"
ceph -c "$admin" osd pool create other 8 8 >/dev/null 2>&1
may_not() { if timeout 20 "$@" >/dev/null 2>&1; then echo "client.cheetah may: $*"; exit 1; fi; }
as=(-c "$dir/client.conf" -n client.cheetah)
may_not rados "${as[@]}" -p other put x /etc/hostname
may_not rados "${as[@]}" -p other ls
may_not ceph "${as[@]}" osd pool rm cheetah cheetah --yes-i-really-really-mean-it
may_not ceph "${as[@]}" osd pool create mine 8 8
may_not ceph "${as[@]}" auth get client.admin
may_not ceph "${as[@]}" osd blocklist add 127.0.0.1:0/1
may_not ceph "${as[@]}" osd set noout
may_not rados "${as[@]}" -p cheetah mksnap mine
echo "client.cheetah: all of the store's tests, nothing else"
