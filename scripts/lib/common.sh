# What the scripts share: where they are, who they run as, what they print. Source it; it expects bash.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# A root login shell of rustup's making has cargo in its path, other shells of root's often not.
PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

# Debian's own Python, whatever else the path offers: the standard library is all that is needed, and -B leaves no bytecode in the checkout.
python=(/usr/bin/python3 -B)

require_root() {
    [[ $EUID -eq 0 ]] || { echo "$0: it makes network namespaces and tap interfaces: run it as root" >&2; exit 1; }
}

require_cargo() {
    command -v cargo >/dev/null || { echo "$0: there is no cargo: install Rust from https://rustup.rs and run this again" >&2; exit 1; }
}

# section TITLE COMMAND...: runs a command under a heading and says how long it took.
section() {
    local title=$1 began=$SECONDS status=0
    shift
    printf '\n== %s\n' "$title"
    "$@" || status=$?
    if [[ $status -eq 0 ]]; then
        printf -- '-- %s: ok, %d s\n' "$title" $((SECONDS - began))
    else
        printf -- '-- %s: FAILED with status %d after %d s\n' "$title" "$status" $((SECONDS - began))
        return "$status"
    fi
}
