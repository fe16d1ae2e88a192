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
    ! mountpoint -q "$root/proc" || umount "$root/proc"
    buildah umount "$container" >/dev/null
    buildah rm "$container" >/dev/null
    [ $# -gt 0 ] || rm -rf "$work"
}
trap finish EXIT
mount -t proc proc "$root/proc" # as any container has
mkdir -p "$root/etc/ceph"
{
    grep -E '^(\[global\]|fsid|mon_host|auth_)' "$CHT_RADOS_CONF"
    printf '[client]\nadmin_socket =\nlog_file =\n'
} >"$root/etc/ceph/ceph.conf"
mapfile -t environment < <(buildah inspect --type image --format '{{range .Docker.Config.Env}}{{println .}}{{end}}' "$tag" | grep .)
in_image() { chroot --userspec=10001:10001 "$root" env -i "${environment[@]}" "$@"; }
missing=$(in_image ldd /usr/local/bin/cheetah-db | grep 'not found') && { echo "image: $missing"; exit 1; }
in_image cheetah-db --version
in_image CHEETAH_RADOS_ID=admin CHEETAH_LISTEN=127.0.0.1:$port CHEETAH_LINE_LISTEN=none CHEETAH_DRAIN_SECONDS=0 cheetah-db serve 2>"$work/log" &
pid=$!
url=http://127.0.0.1:$port
for _ in $(seq 300); do
    kill -0 $pid || { cat "$work/log"; exit 1; }
    ! curl -fs "$url/readyz" >/dev/null || break
    sleep 0.2
done
curl -fsS -X PUT -d hello "$url/pairs/greeting" >/dev/null
[ "$(curl -fsS "$url/pairs/greeting?exact=true&values=true&text=true" | grep -c hello)" = 1 ]
in_image CHEETAH_URL=$url cheetah-db health
# Files of its own: a backup of them goes over the image's /spool.
mkdir "$root/spool/files"
chown 10001:10001 "$root/spool/files"
in_image sh -c "for i in 1 2 3 4 5 6; do cheetah-db put a\$i --data /spool/files --database default value\$i; done"
in_image cheetah-db backup /spool --data /spool/files --database default
backup=$(ls "$root"/spool/*.cheetah)
[ "$(curl -fsS -o /dev/null -w '%{http_code}' -T "$backup" -H 'Content-Type: application/octet-stream' "$url/databases/restored/restore")" = 201 ]
[ "$(curl -fsS "$url/pairs/a?count=true&db=restored")" = 6 ]
kill $pid
wait $pid
pid=''
grep -q '"level":"error"' "$work/log" && { cat "$work/log"; exit 1; }
echo "image: $tag serves"
