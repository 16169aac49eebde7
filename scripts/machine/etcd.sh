# shellcheck shell=bash
# An etcd that keeps the rights of its users (shared/mao_shared/etcd_version.py says from which version on).
# Debian 12 and 13 have none, but that of Debian testing runs on both: its packages are fetched from the
# machine's own mirror, checked, and unpacked below var/. Nothing is installed, no rights are needed, and the
# machine's own package sources stay as they are. Sourced by machine.sh.

ETCD_DIR=$VAR/etcd
ETCD_PIN=3.5.30-2

# SHA-256 of the pinned packages; other architectures take what the archive's signed index says.
etcd_hash() {
    case $1 in
        etcd-server_amd64) echo 11a4f7e350c5020b83edff5160a6063d4e56ac9cd014d21ce8916378bf96de79 ;;
        etcd-client_amd64) echo 1e66ad2aba4cba6842a1ac35d5c525e750102b8fb42748225bcb2e34d6595931 ;;
        etcd-server_arm64) echo c9f0208925c51d44ba026367930c67a1fd2bef12d162e8b99d249f42242f7100 ;;
        etcd-client_arm64) echo 65cfed5f190e8f99239a0e9911b1b1fa9aca484e80856b8afb3310f2ca619733 ;;
        *) return 1 ;;
    esac
}

# An etcd on PATH is used as it is when it is no worse than the one that would be brought.
ensure_etcd() {
    local found
    etcd_is_brought && return 0
    if have etcd && have etcdctl; then
        found=$(etcd_version etcd)
        is_enough "$found" && return 0
        say "the etcd on PATH is ${found:-of no version that it tells}, which is too old for a federation (CVE-2026-33343, CVE-2026-73499)"
    fi
    bring_etcd
}

# The version that a program tells, empty where it does not run.
etcd_version() {
    local line
    line=$("$1" --version 2>/dev/null) || return 0
    line=${line%%$'\n'*}
    echo "${line##*: }"
}

# One place knows versions; it needs Python alone, as MAO does anyway.
judge_etcd() { "${PYTHON:-python3}" -I "$REPO/shared/mao_shared/etcd_version.py" "$@"; }

is_enough() { [ -n "$1" ] && judge_etcd "$1" "${ETCD_PIN%-*}"; }

etcd_is_brought() {
    [ -x "$ETCD_DIR/bin/etcd" ] && [ -x "$ETCD_DIR/bin/etcdctl" ] && is_enough "$(etcd_version "$ETCD_DIR/bin/etcd")"
}

bring_etcd() {
    exec 6>"$VAR/etcd.lock"
    flock 6
    etcd_is_brought || fetch_etcd
    exec 6>&-
}

fetch_etcd() {
    local work=$VAR/etcd-fetch
    have "${PYTHON:-python3}" || apt_install "Python 3, which tells a good etcd from a bad one," python3
    if ! have apt-get || ! have dpkg-deb; then
        no_etcd "An etcd that is good is missing, and this is not a Debian or Ubuntu machine on which it could be fetched."
    fi
    rm -rf "$work"
    mkdir -p "$work"
    (cd "$work" && { fetch_pinned || fetch_newest; })
    unpack_etcd "$work"
    rm -rf "$work"
    say "etcd $(etcd_version "$ETCD_DIR/bin/etcd") lies in $ETCD_DIR/bin; './dev' puts it on PATH"
}

no_etcd() {
    die "$1" "put etcd and etcdctl 3.5.33, 3.6.14, 3.7.1 or newer (the etcd project publishes them) on PATH," \
        "or name the program: export MAO_ETCD=/path/to/etcd"
}

# The archives that this machine takes its own packages from, one a line: FAMILY URI. Asked so that apt need
# not have read their indexes before; those of others do not have the system's suites.
# OS_RELEASE: for tests.
archives() {
    local family suites uri suite
    read -r family suites < <(
        # shellcheck source=/dev/null
        source "${OS_RELEASE:-/etc/os-release}"
        case "${ID:-} ${ID_LIKE:-}" in
            *ubuntu*) echo "ubuntu ${UBUNTU_CODENAME:-${VERSION_CODENAME:-}}" ;;
            *debian*) echo "debian ${VERSION_CODENAME:-stable}|stable|testing|unstable|sid" ;;
        esac
    )
    apt-get --print-uris update 2>/dev/null | while read -r uri _; do
        uri=${uri//\'/}
        [[ $uri == */dists/*/InRelease && $uri != *security* ]] || continue
        suite=${uri#*/dists/}
        [[ "|$suites|" == *"|${suite%%/*}|"* ]] && echo "$family ${uri%/dists/*}/"
    done
}

apt_helper() {
    if have apt-helper; then apt-helper "$@"; else /usr/lib/apt/apt-helper "$@"; fi
}

# Exactly these files, whatever else the mirror says: a hash needs no signature.
fetch_pinned() {
    local id uri arch package file
    arch=$(dpkg --print-architecture)
    etcd_hash "etcd-server_$arch" >/dev/null || return 1
    while read -r id uri; do
        [ "$id" = debian ] || continue
        for package in etcd-server etcd-client; do
            file=${package}_${ETCD_PIN}_$arch.deb
            say "fetching $file from ${uri}pool (Debian testing's, checked by SHA-256)"
            apt_helper -o APT::Sandbox::User=root download-file "${uri}pool/main/e/etcd/$file" "$file" \
                "SHA256:$(etcd_hash "${package}_$arch")" >fetch.log 2>&1 || {
                say "it cannot be had: $(grep -m 1 '^E: ' fetch.log)"
                rm -f ./*.deb ./*.FAILED
                continue 2
            }
        done
        return 0
    done < <(archives)
    return 1
}

# The pinned version has left the mirror, or was never there: the newest that the archive has, by its index,
# whose signature apt checks. The index lies in a folder of our own; the machine's sources are not touched.
fetch_newest() {
    local id uri suite component keyring version
    while read -r id uri; do
        case $id in
            debian) suite=testing component=main keyring=debian-archive-keyring ;;
            ubuntu) suite=devel component=universe keyring=ubuntu-archive-keyring ;;
            *) continue ;;
        esac
        mkdir -p state/lists/partial cache/archives/partial
        echo "deb [signed-by=/usr/share/keyrings/$keyring.gpg] $uri $suite $component" >sources.list
        say "reading the index of $suite ($uri)"
        apart apt-get update -qq >fetch.log 2>&1 || { say "it cannot be read: $(tail -n 1 fetch.log)" && continue; }
        version=$(apart apt-cache madison etcd-server | head -n 1 | cut -d '|' -f 2 | tr -d ' ')
        judge_etcd "${version%-*}" || { say "its etcd, ${version:-none}, is no good" && continue; }
        say "fetching etcd $version in place of $ETCD_PIN, checked by the signed index of $suite"
        apart apt-get download -qq "etcd-server=$version" "etcd-client=$version" >fetch.log 2>&1 && return 0
        say "it cannot be had: $(tail -n 1 fetch.log)"
    done < <(archives)
    no_etcd "No etcd that is good could be fetched from this machine's package mirror; why is above."
}

# apt with sources, lists and caches of its own, in the current folder; nothing is pinned or installed there.
apart() {
    local program=$1
    shift
    "$program" -o Dir::Etc::sourcelist="$PWD/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::Etc::preferences=- -o Dir::Etc::preferencesparts=- \
        -o Dir::State="$PWD/state" -o Dir::State::status=/dev/null -o Dir::Cache="$PWD/cache" \
        -o Acquire::Languages=none -o APT::Sandbox::User=root "$@"
}

# Into place only once it runs here, so that what was there stays until then. Who runs the old program goes on.
unpack_etcd() {
    local package
    for package in "$1"/*.deb; do dpkg-deb --extract "$package" "$1/package"; done
    "$1/package/usr/bin/etcd" --version >"$VAR/etcd.log" 2>&1 ||
        no_etcd "The etcd that was fetched does not run on this machine: $(tail -n 1 "$VAR/etcd.log")"
    mkdir -p "$ETCD_DIR/bin"
    mv -f "$1/package/usr/bin/etcd" "$1/package/usr/bin/etcdctl" "$ETCD_DIR/bin/"
}
