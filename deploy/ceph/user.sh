#!/bin/sh
# user.sh: makes the pool and the user for cheetah-db on a Ceph cluster, as its administrator. May be called again.
#   deploy/ceph/user.sh /etc/ceph/ceph.client.cheetah.keyring
# Environment: CEPH_CONF (/etc/ceph/ceph.conf) POOL=cheetah USER_ID=cheetah PGS=32 SIZE=3 MIN_SIZE=2
# The user may read and write objects of this pool and call object classes there (numops: counters), and nothing else: it makes no pool,
# reads no other one, and changes nothing of the cluster. tests/rados/cephx.sh tries both.
set -eu
keyring=${1:?the file for the keyring}
POOL=${POOL:-cheetah} USER_ID=${USER_ID:-cheetah} PGS=${PGS:-32} SIZE=${SIZE:-3} MIN_SIZE=${MIN_SIZE:-2}
ceph() { command ceph -c "${CEPH_CONF:-/etc/ceph/ceph.conf}" "$@"; }
ceph osd pool ls | grep -qx "$POOL" || ceph osd pool create "$POOL" "$PGS" "$PGS" replicated
ceph osd pool application enable "$POOL" cheetah >/dev/null 2>&1 || true # it is already
ceph osd pool set "$POOL" size "$SIZE"
ceph osd pool set "$POOL" min_size "$MIN_SIZE" # 2: an acknowledged write is on two disks at least
umask 077
ceph auth get-or-create "client.$USER_ID" mon 'allow r' osd "allow rwx pool=$POOL" >"$keyring.new"
mv "$keyring.new" "$keyring"
echo "pool $POOL, client.$USER_ID in $keyring"
