#!/bin/bash
# cluster.sh: a Ceph RADOS mini cluster for tests, on loopback, as ordinary processes below one folder.
#   cluster.sh start DIR        one monitor, OSDS (3) BlueStore OSDs on sparse files, pool POOL; prints the conf path
#   cluster.sh stop DIR         ends what was started here (KEEP=1 keeps the files, otherwise DIR is removed)
#   cluster.sh status DIR       daemons with pid and memory, osd tree, flags; exit 0 when all OSDs are up
#   cluster.sh kill-osd DIR N   SIGKILL          kill-mon DIR     SIGKILL
#   cluster.sh start-osd DIR N  start it again   start-mon DIR    start it again
#   cluster.sh add-osd DIR      one OSD more; prints its number
#   cluster.sh pause-osd DIR N  SIGSTOP          resume-osd DIR N  SIGCONT
# Environment: OSDS=3 SIZE=2 MIN_SIZE= POOL=cheetah PGS=16 BLOCK=4G (sparse file of an OSD) OSD_MEM=939524096 OSD_CACHE=536870912 (bytes)
#   AUTH=none (or cephx: DIR/keyring is the administrator's) EXTRA_CONF='lines for [global]'. Debian 12: ceph-mon ceph-osd ceph-common. No manager: commands served by it
#   (ceph pg ..., ceph osd df, ceph df's pool usage, ceph osd ok-to-stop) block, so none is used here.
set -euo pipefail
OSDS=${OSDS:-3} SIZE=${SIZE:-2} MIN_SIZE=${MIN_SIZE:-} POOL=${POOL:-cheetah} PGS=${PGS:-16} BLOCK=${BLOCK:-4G}
OSD_MEM=${OSD_MEM:-939524096} OSD_CACHE=${OSD_CACHE:-536870912} EXTRA_CONF=${EXTRA_CONF:-} AUTH=${AUTH:-none}
die() { echo "cluster.sh: $*" >&2; exit 1; }
[ $# -ge 2 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2; }
cmd=$1; if [ "$cmd" = start ]; then mkdir -p "$2"; elif [ ! -d "$2" ]; then [ "$cmd" = stop ] && exit 0; die "no cluster in $2"; fi; DIR=$(cd "$2" && pwd); CONF=$DIR/ceph.conf
[ ${#DIR} -le 80 ] || die "the path of DIR is too long for unix sockets"
for t in ceph-mon ceph-osd ceph monmaptool uuidgen; do command -v $t >/dev/null || die "$t is not installed (apt-get install ceph-mon ceph-osd ceph-common uuid-runtime)"; done
exec 9>"$DIR/.lock"; flock 9          # one call on a folder at a time; daemons are started without it

C() { timeout "${CEPH_TIMEOUT:-30}" ceph -c "$CONF" --connect-timeout 20 "$@" 2>>"$DIR/ceph-cli.log"; }
pid_of() { # NAME: its pid if it runs and is ours
  local p; p=$(cat "$DIR/run/$1.pid" 2>/dev/null) || return 1
  [ -n "$p" ] && [ -r "/proc/$p/cmdline" ] && tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null | grep -qF -- "-c $CONF " || return 1
  case $(sed 's/.*) //; s/ .*//' "/proc/$p/stat" 2>/dev/null) in Z|X|'') return 1;; esac
  echo "$p"
}
spawn() { # NAME BINARY ID: an ordinary process in its own session; its pid file is ours
  local name=$1 bin=$2 id=$3
  pid_of "$name" >/dev/null && return 0
  setsid "$bin" -f -i "$id" -c "$CONF" --setuser root --setgroup root 9>&- </dev/null >>"$DIR/log/$name.out" 2>&1 &
  echo $! >"$DIR/run/$name.pid"; disown
}
gone() { # PID: it and all of its threads have ended (a killed leader is a zombie while threads still hold the locks)
  [ ! -d "/proc/$1" ] && return 0
  [ "$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null)" = Z ] && [ "$(ls "/proc/$1/task" 2>/dev/null | wc -l)" -le 1 ]
}
end() { # NAME SIGNAL
  local p; p=$(pid_of "$1") || return 0
  kill -"$2" "$p" 2>/dev/null || true
  for _ in $(seq 200); do gone "$p" && return 0; sleep 0.05; done
  kill -KILL "$p" 2>/dev/null || true
  for _ in $(seq 200); do gone "$p" && return 0; sleep 0.05; done
  die "$1 (pid $p) does not end"
}
free_base() { # a port base outside the ephemeral range with the monitor's port free
  python3 - <<'P'
import random, socket
while True:
    b = random.randrange(101, 320) * 100
    try:
        for p in range(b, b + 24):
            s = socket.socket(); s.bind(("127.0.0.1", p)); s.close()
    except OSError:
        continue
    print(b); break
P
}
made() { local n=0 f; for f in "$DIR"/osd.*/ready; do [ ! -e "$f" ] || n=$((n + 1)); done; echo $n; } # OSDs formatted here
up_osds() { C osd stat -f json | python3 -c 'import json,sys; print(json.load(sys.stdin)["num_up_osds"])' 2>/dev/null || echo 0; }
wait_up() { # N: until N OSDs are up
  for _ in $(seq 150); do [ "$(up_osds)" -ge "$1" ] && return 0; sleep 0.2; done; die "OSDs do not come up, see $DIR/log"
}
new_osd() { # ID: registers and formats it
  local id=$1 uuid; [ -e "$DIR/osd.$id/ready" ] && return 0
  mkdir -p "$DIR/osd.$id"; uuid=$(cat "$DIR/osd.$id/uuid" 2>/dev/null || uuidgen | tee "$DIR/osd.$id/uuid")
  C osd new "$uuid" "$id" >/dev/null || die "osd new $id failed"
  rm -f "$DIR/osd.$id/block"
  [ "$AUTH" = none ] || C auth get-or-create "osd.$id" mon 'allow profile osd' osd 'allow *' -o "$DIR/osd.$id/keyring" >/dev/null || die "no key for osd.$id"
  ceph-osd -i "$id" -c "$CONF" --mkfs --osd-uuid "$uuid" --setuser root --setgroup root 9>&- >>"$DIR/log/osd.$id.mkfs" 2>&1 || die "mkfs of osd.$id failed"
  touch "$DIR/osd.$id/ready"
}
case $cmd in
start)
  mkdir -p "$DIR/log" "$DIR/run" "$DIR/mon.a"
  if [ ! -e "$CONF" ]; then
    base=$(free_base); fsid=$(uuidgen)
    cat >"$CONF.tmp" <<E
[global]
fsid = $fsid
mon_host = [v2:127.0.0.1:$base/0]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_port_min = $((base + 1))
ms_bind_port_max = $((base + 99))
auth_cluster_required = $AUTH
auth_service_required = $AUTH
auth_client_required = $AUTH
$([ "$AUTH" = none ] || echo "keyring = $DIR/keyring")
run_dir = $DIR/run
pid_file =
admin_socket = $DIR/run/\$name.\$pid.asok
log_file = $DIR/log/\$name.log
mon_cluster_log_file = $DIR/log/cluster.log
mon_data = $DIR/mon.\$id
osd_data = $DIR/osd.\$id
crash_dir = $DIR/crash
osd_pool_default_size = $SIZE
$([ -z "$MIN_SIZE" ] || echo "osd_pool_default_min_size = $MIN_SIZE")
osd_crush_chooseleaf_type = 0
osd_pool_default_pg_autoscale_mode = off
mon_allow_pool_size_one = true
# A change of the map is proposed at once and not after a second
paxos_propose_interval = 0.05
mon_allow_pool_delete = true
mon_max_pg_per_osd = 1000
mon_data_avail_crit = 1
mon_data_avail_warn = 2
bluestore_block_size = $(numfmt --from=iec "$BLOCK")
bluestore_block_wal_create = false
bluestore_block_db_create = false
# Debian's ceph-osd has no tcmalloc and 768 MiB of any osd_memory_target are set aside: 896 MiB leaves RocksDB 64 MiB, less a
# shard than one Bloom filter of 2 M keys, and every omap lookup then reads 5 MB. So: a cache of a fixed size.
osd_memory_target = $OSD_MEM
bluestore_cache_autotune = false
bluestore_cache_size = $OSD_CACHE
bluestore_cache_kv_ratio = 0.7
bluestore_cache_meta_ratio = 0.2
debug_ms = 0/0
$EXTRA_CONF
$([ "$AUTH" = none ] || printf '[osd]\nkeyring = %s/osd.$id/keyring' "$DIR")
[client]
admin_socket =
log_file = $DIR/log/client.log
E
    monmaptool --create --clobber --fsid "$fsid" --addv a "[v2:127.0.0.1:$base]" "$DIR/monmap" >/dev/null
    mv "$CONF.tmp" "$CONF"
  fi
  if [ ! -e "$DIR/mon.a/ready" ]; then
    rm -rf "$DIR/mon.a"; mkdir -p "$DIR/mon.a"; with=()
    if [ "$AUTH" = cephx ]; then
      ceph-authtool --create-keyring "$DIR/keyring" --gen-key -n mon. --cap mon 'allow *' >/dev/null
      ceph-authtool "$DIR/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' >/dev/null
      with=(--keyring "$DIR/keyring")
    fi
    ceph-mon --mkfs -i a -c "$CONF" --monmap "$DIR/monmap" "${with[@]}" --setuser root --setgroup root 9>&- >>"$DIR/log/mon.mkfs" 2>&1 || die "mkfs of the monitor failed"
    touch "$DIR/mon.a/ready"
  fi
  spawn mon.a ceph-mon a
  n=$(made); [ "$n" -ge "$OSDS" ] || n=$OSDS
  pids=(); for i in $(seq 0 $((n - 1))); do { new_osd "$i"; } & pids+=($!); done
  for p in "${pids[@]}"; do wait "$p" || die "an OSD could not be made, see $DIR/log"; done
  for i in $(seq 0 $((n - 1))); do spawn osd.$i ceph-osd "$i"; done
  wait_up "$n"
  C osd pool ls | grep -qx "$POOL" || { C osd pool create "$POOL" "$PGS" "$PGS" >/dev/null; C osd pool application enable "$POOL" cheetah >/dev/null || true; }
  timeout 60 rados -c "$CONF" -p "$POOL" put .ready /dev/null >/dev/null 2>&1 || die "the pool does not answer"
  echo "$CONF" ;;
stop)
  for f in "$DIR"/run/osd.*.pid; do [ -e "$f" ] && { end "$(basename "$f" .pid)" "${SIG:-KILL}" & } ; done; wait
  end mon.a "${SIG:-KILL}"
  [ -n "${KEEP:-}" ] || { [ ! -e "$CONF" ] || grep -q '^fsid' "$CONF" || die "$DIR is not mine"; [ ! -e "$CONF" ] || rm -rf "$DIR"; } ;;
status)
  [ -e "$CONF" ] || { echo "no cluster in $DIR"; exit 1; }
  for f in "$DIR"/run/*.pid; do [ -e "$f" ] || continue; n=$(basename "$f" .pid)
    if p=$(pid_of "$n"); then echo "$n pid $p rss $(awk '/VmRSS/{print int($2/1024)}' /proc/$p/status) MiB threads $(ls /proc/$p/task | wc -l)"; else echo "$n down"; fi; done
  C osd stat || { echo "the monitor does not answer"; exit 1; }
  echo "disk $(du -sm "$DIR" | cut -f1) MiB, conf $CONF"
  [ "$(up_osds)" -eq "$(made)" ] ;;
kill-osd) end "osd.${3:?N}" KILL ;;
kill-mon) end mon.a KILL ;;
start-osd) [ -e "$DIR/osd.${3:?N}/ready" ] || die "no osd.$3"; spawn "osd.$3" ceph-osd "$3" ;;
start-mon) spawn mon.a ceph-mon a ;;
pause-osd) p=$(pid_of "osd.${3:?N}") && kill -STOP "$p" ;;
resume-osd) p=$(pid_of "osd.${3:?N}") && kill -CONT "$p" ;;
add-osd)
  n=0; while [ -e "$DIR/osd.$n/ready" ]; do n=$((n + 1)); done
  new_osd $n; spawn osd.$n ceph-osd $n; wait_up $((n + 1)); echo $n ;;
*) die "unknown command $cmd" ;;
esac
