#!/bin/sh
# Prints the Python to build with. When something needed to build limnion is missing, says so, all at once, and fails.
# Plain sh, because it runs before anything else is known to be there. PYTHON names an interpreter to insist on.

rust_wanted=$(sed -n 's/^rust-version = "\([0-9.]*\)".*/\1/p' Cargo.toml)
python_wanted=3.11
missing=""

lack() {
    missing="$missing
  * $1
      $2"
}

# at_least WANTED FOUND: compares major.minor
at_least() {
    [ "${2%%.*}" -gt "${1%%.*}" ] && return 0
    [ "${2%%.*}" -eq "${1%%.*}" ] || return 1
    wanted_minor=${1#*.} found_minor=${2#*.}
    [ "${found_minor%%.*}" -ge "${wanted_minor%%.*}" ]
}

get_rust="Get it from https://rustup.rs"
if rust_found=$(cargo --version 2>/dev/null); then
    rust_found=${rust_found#cargo }
    rust_found=${rust_found%% *}
    at_least "$rust_wanted" "$rust_found" ||
        lack "Rust $rust_wanted or newer (found $rust_found)." "With rustup: rustup update stable. Otherwise: $get_rust"
elif [ -x "$HOME/.cargo/bin/cargo" ]; then
    lack "Rust on the PATH (it is installed in ~/.cargo/bin)." "Run: . ~/.cargo/env"
else
    lack "Rust $rust_wanted or newer (cargo was not found)." "$get_rust"
fi

python=""
if [ -n "$PYTHON" ]; then
    set -- "$PYTHON"
else
    set -- python3 python python3.14 python3.13 python3.12 python3.11
fi
for name; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11) or sys.implementation.name != "cpython")' 2>/dev/null; then
        python=$name
        break
    fi
done
if [ -z "$python" ]; then
    lack "CPython $python_wanted or newer ($1: $("$1" --version 2>/dev/null || echo "not found"))." \
        "Get it from https://www.python.org/downloads/, or name one you have: make PYTHON=/path/to/python ..."
elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    lack "The venv module of $python." "Debian and Ubuntu: apt install python3-venv"
fi

case $(uname -s) in
MINGW* | MSYS* | CYGWIN*) ;; # rustup installs nothing without Microsoft's linker
*)
    cc --version >/dev/null 2>&1 ||
        lack "A C compiler, with which Rust links (cc was not found)." \
            "Debian and Ubuntu: apt install build-essential. Fedora: dnf install gcc. macOS: xcode-select --install"
    ;;
esac

if [ -n "$missing" ]; then
    echo "limnion cannot be built here yet. What is missing:$missing" >&2
    exit 1
fi
echo "$python"
