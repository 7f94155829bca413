# Sourced by the commands in this folder. Owns the set-up that they share: where the project is, its virtual
# environment in .venv, and Debian packages where we are root. Quiet unless it has something to do.

set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
cd -- "$root"
python=$root/.venv/bin/python

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# run_quietly COMMAND...: its output is shown only if it fails.
run_quietly() {
    local output
    output=$("$@" 2>&1) || { printf '%s\n' "$output" >&2; return 1; }
}

# can_install: packages can be installed here.
can_install() { [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; }

# apt_install PACKAGE...: installed, and none of their services started.
apt_install() (
    # One at a time on this machine: a second one would take our policy-rc.d for the one to restore.
    exec 8</usr/sbin
    flock 8
    policy=/usr/sbin/policy-rc.d
    saved=$(mktemp -d)
    restore() {
        rm -f "$policy"
        if [[ -e $saved/policy-rc.d ]]; then mv "$saved/policy-rc.d" "$policy"; fi
        rmdir "$saved"
    }
    trap restore EXIT
    if [[ -e $policy ]]; then mv "$policy" "$saved/"; fi
    # invoke-rc.d reads 101 as "may not" (/usr/share/doc/sysv-rc/README.policy-rc.d).
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    export DEBIAN_FRONTEND=noninteractive
    install=(apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300
        -o Dpkg::Options::=--force-confold "$@")
    # A fresh container has no package lists yet; then the first try fails.
    "${install[@]}" &>/dev/null || { run_quietly apt-get update -qq && run_quietly "${install[@]}"; }
)

# find_python: prints a Python that is new enough and can make virtual environments.
find_python() {
    local candidate candidates=(python3 python3.13 python3.12 python3.11)
    if [[ -n ${PYTHON:-} ]]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
            "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

explain_python() {
    local found
    found=$("${PYTHON:-python3}" --version 2>&1) || found='no python3'
    die "needs Python 3.11 or newer with venv; found: $found. On Debian 12: apt-get install python3 python3-venv." \
        'Another one can be named: PYTHON=/path/to/python3'
}

# make_venv: an empty .venv, unless there is one that works.
make_venv() {
    if "$python" -m pip --version &>/dev/null; then return; fi
    local base
    if ! base=$(find_python); then
        if [[ -n ${PYTHON:-} ]] || ! can_install; then explain_python; fi
        say 'installing python3-venv'
        apt_install python3 python3-venv
        base=$(find_python) || explain_python
    fi
    say "making .venv with $("$base" --version)"
    run_quietly "$base" -m venv --clear "$root/.venv" || die "cannot make $root/.venv"
}

# need_venv LOCK...: .venv holds what these lock files say. pip runs only when they, the interpreter or the
# place of the project have changed since: .venv keeps a stamp for each lock file.
need_venv() {
    # Two commands started at once must not both fill .venv. The lock goes with this shell's descriptor 9.
    exec 9<"$root"
    flock 9
    make_venv
    local lock stamp version options=() stale=()
    version=$("$python" -VV)
    for lock in "$@"; do
        stamp=$(printf '%s\n' "$version" "$root" | cat - "$lock" | sha256sum)
        options+=(-r "$lock")
        if [[ $(cat ".venv/$lock.stamp" 2>/dev/null) != "$stamp" ]]; then stale+=("$lock" "$stamp"); fi
    done
    if [[ ${#stale[@]} -gt 0 ]]; then
        say "installing $* into .venv"
        PIP_DISABLE_PIP_VERSION_CHECK=1 run_quietly "$python" -m pip install --quiet --require-hashes "${options[@]}" ||
            die "cannot install $*"
        set -- "${stale[@]}"
        while [[ $# -gt 0 ]]; do
            printf '%s\n' "$2" >".venv/$1.stamp"
            shift 2
        done
    fi
    exec 9<&-
}
