#!/bin/sh
# install-deps: the Debian packages that building, testing and checking need; does nothing where all are there.
#   deploy/install-deps.sh [build] [test] [lint] [bench] [deploy] [fuzz] [package] [rados] [arm64]      default: build test
set -eu

packages=
# shellcheck disable=SC2048 # a list of words
for group in ${*:-build test}; do
    case $group in
    build) packages="$packages gcc libc6-dev cmake ninja-build ccache pkg-config libmicrohttpd-dev libgnutls28-dev
            libjansson-dev libb64-dev libb2-dev libcurl4-openssl-dev libedit-dev libzstd-dev zlib1g-dev" ;;
    test) packages="$packages libcmocka-dev g++ curl python3 python3-pytest python3-requests python3-httpx python3-jsonschema python3-numpy
            python3-yaml python3-zstandard openssl python3-build python3-pip python3-setuptools python3-venv python3-wheel
            chromium chromium-driver"
        command -v npm >/dev/null || packages="$packages nodejs npm" ;; # console/ and tests/console; one from elsewhere will do
    lint) packages="$packages clang-format clang-tidy cppcheck mypy python3-httpx python3-numpy" ;;
    bench) packages="$packages g++ liblmdb-dev librocksdb-dev libsqlite3-dev libleveldb-dev libtkrzw-dev libwiredtiger-dev wrk redis-server webdis" ;;
    deploy) packages="$packages haproxy nginx-light prometheus systemd buildah debootstrap ca-certificates shellcheck
            strace binutils procps" ;;
    package) packages="$packages debhelper dpkg-dev fakeroot lintian python3 python3-build python3-setuptools python3-wheel" ;;
    # The store on Ceph RADOS (-DCHEETAH_RADOS=ON), and what its tests start a cluster of. No other group needs them: some 200 MB.
    rados) packages="$packages librados-dev ceph-mon ceph-osd ceph-common uuid-runtime" ;;
    arm64) packages="$packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static debootstrap" ;;
    fuzz) packages="$packages clang libclang-rt-14-dev" ;;
    *)
        echo "install-deps: unknown group '$group' (build, test, lint, bench, deploy, fuzz, package, rados, arm64)" >&2
        exit 2
        ;;
    esac
done

missing=
for p in $packages; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

sudo=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "install-deps: not root and no sudo; please install:$missing" >&2
        exit 1
    }
    sudo=sudo
fi
echo "install-deps: installing$missing"

# The servers among them are for tests, which start their own: none is to run by itself, now or after a reboot.
services=
for service in haproxy nginx prometheus redis-server webdis; do
    case $missing in
    *" $service"*) services="$services $service" ;;
    esac
done
policy=/usr/sbin/policy-rc.d
if [ -n "$services" ] && [ ! -e $policy ]; then
    trap '$sudo rm -f $policy' EXIT
    trap 'exit 1' HUP INT TERM # dash runs the other at an exit only; left there, it would keep every service of this machine from starting
    printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
    $sudo chmod 755 $policy
fi
$sudo apt-get update -q
# shellcheck disable=SC2086 # a list of words
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
if [ -n "$services" ] && [ -d /run/systemd/system ]; then
    # shellcheck disable=SC2086 # a list of words
    $sudo systemctl disable --now --quiet $services
fi
