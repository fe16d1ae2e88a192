#!/bin/sh
# build-image: builds a Dockerfile without a container engine, with Debian's buildah, as root (or under sudo).
#   deploy/build-image.sh [--file FILE] [--tag NAME] [--base IMAGE] [--output FILE]
#     --file FILE      the Dockerfile (default the one at the top; deploy/ceph/Dockerfile has librados)
#     --tag NAME       of the image (default localhost/cheetah-db)
#     --base IMAGE     what it stands on (default docker.io/library/debian:bookworm-slim; where no registry can be reached,
#                      a root file system is made from Debian's packages with debootstrap, stripped like bookworm-slim)
#     --output FILE    also write it as an OCI archive, for `podman load` or `skopeo copy oci-archive:FILE ...`
# The steps run in chroots (no namespaces, no daemon), so this works in most containers and CI machines, too. Images are
# kept where buildah keeps them; BUILDAH_ROOT and BUILDAH_DRIVER (vfs, overlay) choose another place and driver.
# The last line is the size of the image, uncompressed.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
file=$here/../Dockerfile tag=localhost/cheetah-db base='' output=''
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0"
        exit 0
        ;;
    --file | --tag | --base | --output)
        [ $# -ge 2 ] || {
            echo "build-image: $1 needs a value" >&2
            exit 2
        }
        case $1 in
        --file) file=$2 ;;
        --tag) tag=$2 ;;
        --base) base=$2 ;;
        --output) output=$2 ;;
        esac
        shift 2
        ;;
    *)
        echo "build-image: unknown option '$1'; see --help" >&2
        exit 2
        ;;
    esac
done
[ "$(id -u)" -eq 0 ] || {
    echo "build-image: chroot needs root; run it with sudo" >&2
    exit 1
}
"$here/install-deps.sh" deploy >&2

run_buildah()
{
    set -- "$@"
    command=$1
    shift
    buildah ${BUILDAH_ROOT:+--root "$BUILDAH_ROOT" --runroot "$BUILDAH_ROOT/run"} \
        ${BUILDAH_DRIVER:+--storage-driver "$BUILDAH_DRIVER"} "$command" "$@"
}

# A root file system of Debian 12 as an image, made once.
bootstrap()
{
    made=localhost/debian-bookworm-minbase
    if ! run_buildah inspect --type image $made >/dev/null 2>&1; then
        echo "build-image: no registry; debootstrap makes the base" >&2
        root=$(mktemp -d)
        debootstrap --variant=minbase bookworm "$root/fs" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >&2
        rm -rf "$root/fs/var/cache/apt/"* "$root/fs/var/lib/apt/lists/"* "$root/fs/var/log/"* "$root/fs/usr/share/doc/"* \
            "$root/fs/usr/share/man/"* "$root/fs/usr/share/info/"* "$root/fs/usr/share/locale/"* "$root/fs/dev/"*
        printf 'path-exclude %s\n' '/usr/share/doc/*' '/usr/share/man/*' '/usr/share/info/*' '/usr/share/locale/*' \
            >"$root/fs/etc/dpkg/dpkg.cfg.d/slim"
        container=$(run_buildah from scratch)
        run_buildah copy -q "$container" "$root/fs" / >&2
        run_buildah config --cmd '["bash"]' --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
            "$container" >&2
        run_buildah commit -q --rm "$container" $made >&2
        rm -rf "$root"
    fi
    echo $made
}

if [ -z "$base" ]; then
    base=docker.io/library/debian:bookworm-slim
    run_buildah pull -q "$base" >/dev/null 2>&1 || base=$(bootstrap)
fi
run_buildah bud --isolation chroot --format docker --layers=false --build-arg BASE="$base" --tag "$tag" \
    --file "$file" "$here/.." >&2
[ -z "$output" ] || run_buildah push -q "$tag" "oci-archive:$output"
run_buildah images --filter reference="$tag" --format '{{.Name}}:{{.Tag}} {{.Size}}'
