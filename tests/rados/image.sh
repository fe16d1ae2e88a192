#!/bin/bash
# image.sh: the image of deploy/ceph, built (deploy/build-image.sh) and run in a chroot of its files, as its user, on a mini cluster: are all libraries
# there, does it serve, and restore a backup of files. Needs root, buildah and debootstrap (deploy/install-deps.sh deploy rados); some minutes.
#   tests/rados/image.sh [IMAGE]        IMAGE: one that is built already
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ -z "${CHT_RADOS_CONF:-}" ]; then
    exec "$here/run.sh" "$0" "$@"
fi
tag=${1:-localhost/cheetah-db-rados-test}
[ $# -gt 0 ] || "$here/../../deploy/build-image.sh" --file "$here/../../deploy/ceph/Dockerfile" --tag "$tag"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
container=$(buildah from "$tag")
root=$(buildah mount "$container")
work=$(mktemp -d)
pid=''
finish()
{
    [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
    wait
    ! mountpoint -q "$root/proc" || umount "$root/proc"
    buildah umount "$container" >/dev/null
    buildah rm "$container" >/dev/null
    rm -rf "$work"
}
trap finish EXIT
mount -t proc proc "$root/proc" # as any container has
mkdir -p "$root/etc/ceph"
{
    grep -E '^(\[global\]|fsid|mon_host|auth_)' "$CHT_RADOS_CONF"
    printf '[client]\nadmin_socket =\nlog_file =\n'
} >"$root/etc/ceph/ceph.conf"
mapfile -t environment < <(buildah inspect --type image --format '{{range .Docker.Config.Env}}{{println .}}{{end}}' "$tag" | grep .)
# The process itself, so that $! is its number and not that of a shell which waits for it.
in_image() { exec chroot --userspec=10001:10001 "$root" env -i "${environment[@]}" "$@"; }
missing=$(in_image ldd /usr/local/bin/cheetah-db | grep 'not found') && { echo "image: $missing"; exit 1; }
(in_image cheetah-db --version)
url=http://127.0.0.1:$port

serve() # NAME=VALUE...: a server, ready
{
    in_image "$@" CHEETAH_LISTEN=127.0.0.1:"$port" CHEETAH_LINE_LISTEN=none CHEETAH_DRAIN_SECONDS=0 cheetah-db serve 2>>"$work/log" &
    pid=$!
    for _ in $(seq 300); do
        ! curl -fs --max-time 10 "$url/readyz" >/dev/null || return 0
        kill -0 $pid || break
        sleep 0.2
    done
    cat "$work/log"
    exit 1
}

stop()
{
    kill "$pid"
    wait "$pid"
    pid=''
}

# On files, stopped in between, so that its backup is more than a log.
all=("${environment[@]}")
mapfile -t environment < <(printf '%s\n' "${all[@]}" | grep -v RADOS)
mkdir "$root/spool/files"
chown 10001:10001 "$root/spool/files"
for i in 1 2; do
    serve CHEETAH_STORE=local CHEETAH_DATA=/spool/files
    curl -fsS --max-time 60 -X PUT -d "value $i" "$url/pairs/a$i" >/dev/null
    [ $i = 2 ] || stop
done
curl -fsS --max-time 60 -o "$work/backup" "$url/databases/default/backup"
stop
environment=("${all[@]}")
serve CHEETAH_RADOS_ID=admin
(in_image CHEETAH_LISTEN=127.0.0.1:"$port" cheetah-db health)
curl -fsS --max-time 60 -X PUT -d hello "$url/pairs/greeting" >/dev/null
curl -fsS --max-time 60 "$url/pairs/greeting?exact=true&values=true" | grep -q '"value":"aGVsbG8="'
[ "$(curl -fsS --max-time 60 -o /dev/null -w '%{http_code}' -T "$work/backup" -H 'Content-Type: application/octet-stream' "$url/databases/restored/restore")" = 201 ]
curl -fsS --max-time 60 "$url/pairs/a?count=true&db=restored" | grep -q '"pairs":2'
stop
grep '"level":"error"' "$work/log" && { cat "$work/log"; exit 1; }
echo "image: $tag serves"
