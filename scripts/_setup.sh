# Makes a Python environment that can run tfdqn, or finds that it is there already. To be sourced by the scripts beside
# it, after `root` is set to the top of the checkout:
#
#     set_up base     # the package and what it needs
#     set_up test     # the same and the test tools
#     set_up tools    # what scripts/lock and scripts/audit need and nothing else, in an environment of its own
#     set_up docs     # what scripts/site needs, likewise
#
# Everything comes from the lock files in requirements/, which say by its hash what each downloaded file must be.
#
# Leaves the environment's interpreter in `python`. All messages go to standard error: standard output is the command's.

say() { printf '%s\n' "$*" >&2; }

# Standard input is a Python program; the arguments are an interpreter and the program's arguments.
# Isolated and without site-packages: this must cost milliseconds, and nothing installed may change what it does.
run_plain() {
    local interpreter=$1
    shift
    "$interpreter" -I -S - "$@"
}

# Prints "MAJOR.MINOR", then "venv" if environments can be made with this interpreter.
describe() {
    run_plain "$1" 2>/dev/null <<'PYTHON'
import sys
print("%d.%d" % sys.version_info[:2])
try:
    import ensurepip, venv
    print("venv")
except ImportError:
    pass
PYTHON
}

is_supported() { case $1 in 3.11 | 3.12 | 3.13) return 0 ;; *) return 1 ;; esac }

# Sets `found` to the first interpreter that can make the environment, or explains and fails.
find_interpreter() {
    local name path description version seen='' without_venv='' without_venv_version=''
    found=''
    for name in "${PYTHON:-}" python3.13 python3.12 python3.11 python3 python; do
        [ -n "$name" ] || continue
        type -P "$name" >/dev/null || [ "$name" != "${PYTHON:-}" ] || seen+="  $name (PYTHON: no such command)"$'\n'
        # Every place on PATH, not only the first: a shim may be in front that exists but does not run.
        while IFS= read -r path; do
            [ -n "$path" ] || continue
            description=$(describe "$path") || description=''
            version=${description%%$'\n'*}
            if [ -z "$version" ]; then
                seen+="  $path (does not run)"$'\n'
            elif ! is_supported "$version"; then
                seen+="  $path (Python $version)"$'\n'
            elif [ "$description" = "$version" ]; then
                seen+="  $path (Python $version, without the venv module)"$'\n'
                [ -n "$without_venv" ] || { without_venv=$path without_venv_version=$version; }
            else
                found=$path found_version=$version
                return 0
            fi
        done <<<"$(type -aP "$name" 2>/dev/null)"
    done
    if [ -n "$without_venv" ]; then
        say "$without_venv cannot make environments: install its venv module (Debian, Ubuntu: sudo apt install python$without_venv_version-venv) and run this again."
        return 1
    fi
    say "tfdqn needs Python 3.11, 3.12 or 3.13, and none was found on PATH. Install one, or name it: PYTHON=/path/to/python3.13 $0"
    if [ -n "$seen" ]; then
        say "Found:"
        printf '%s' "$seen" >&2
    else
        say "Found: no Python at all."
    fi
    return 1
}

# The stamp says what the environment was made from. `stamp check FILE...` succeeds if one of the files is up to date,
# `stamp write FILE...` writes them. Exit code 3: this Python is not one that tfdqn supports.
stamp() {
    run_plain "$python" "$root" "$gpu" "$@" <<'PYTHON'
import glob, hashlib, os, sys
root, gpu, action, *stamps = sys.argv[1:]
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(3)
digest = hashlib.sha256()
locks = [glob.escape(root) + "/requirements/" + name for name in ("*.txt", "py%d.%d/*.txt" % sys.version_info[:2])]
paths = [root + "/setup.cfg", root + "/pyproject.toml", *sorted(path for lock in locks for path in glob.glob(lock))]
for path in paths:
    with open(path, "rb") as file:
        digest.update(file.read() + b"\0")
# The checkout's place too: an editable installation points to it.
digest.update("\0".join([os.path.realpath(root), gpu, sys.version]).encode())
if action == "write":
    for stamp in stamps:
        with open(stamp + ".new", "w") as file:
            file.write(digest.hexdigest())
        os.replace(stamp + ".new", stamp)
    sys.exit(0)
for stamp in stamps:
    try:
        with open(stamp) as file:
            if file.read() == digest.hexdigest():
                sys.exit(0)
    except OSError:
        pass
sys.exit(1)
PYTHON
}

# Sets `prefix`, `python` and `is_own`: the active environment, or .venv beside the code.
choose_environment() {
    is_own=no
    if [ "$1" = tools ] || [ "$1" = docs ]; then
        prefix=$root/.venv-$1
        is_own=yes
    elif [ -n "${VIRTUAL_ENV:-}" ]; then
        prefix=$VIRTUAL_ENV
    elif [ -n "${CONDA_PREFIX:-}" ]; then
        prefix=$CONDA_PREFIX
    else
        prefix=$root/.venv
        is_own=yes
    fi
    python=$prefix/bin/python
    if [ "$is_own" = no ] && ! [ -x "$python" ]; then
        say "The active environment, $prefix, has no bin/python: leave it (deactivate, or unset VIRTUAL_ENV) and run this again."
        return 1
    fi
}

is_up_to_date() {
    local purpose=$1 status
    [ -x "$python" ] || return 1
    # The test environment holds all that the base one does.
    if [ "$purpose" = base ]; then
        stamp check "$prefix/.tfdqn-base" "$prefix/.tfdqn-test"
    else
        stamp check "$prefix/.tfdqn-$purpose"
    fi
    status=$?
    if [ "$status" = 3 ]; then
        if [ "$is_own" = yes ]; then
            say "$prefix holds $("$python" -V 2>&1), but tfdqn needs Python 3.11, 3.12 or 3.13: delete that folder and run this again."
        else
            say "The active environment, $prefix, holds $("$python" -V 2>&1), but tfdqn needs Python 3.11, 3.12 or 3.13: leave it or activate another."
        fi
        exit 2
    fi
    return "$status"
}

# -P everywhere: where this is called, there may be files with the names of Python's modules.
has_pip() { "$python" -P -m pip --version >/dev/null 2>&1 || { "$python" -P -m ensurepip && "$python" -P -m pip --version; } >"$log" 2>&1; }

make_venv() {
    has_pip && return 0
    find_interpreter || exit 2
    say "Making an environment with Python $found_version in $prefix"
    if ! "$found" -P -m venv --clear "$prefix" >"$log" 2>&1; then
        say "python -m venv failed: $(tail -n 1 "$log")"
        exit 1
    fi
}

# Runs pip with the given arguments, quietly, and turns its failures into one line each.
pip_install() {
    "$python" -P -m pip install --no-input --disable-pip-version-check "$@" >>"$log" 2>&1 </dev/null && return 0
    if grep -qi 'No space left on device' "$log"; then
        say "The disk is full: setting up takes about 2 GB in $prefix, and as much again while it runs. Details: $log"
    elif grep -qiE 'NewConnectionError|NameResolutionError|name resolution|Name or service not known|Network is unreachable|ConnectTimeout|Connection (refused|aborted|broken|reset)|ProxyError|Read ?timed ?out|SSLError|requirement setuptools.*from versions: none' "$log"; then
        say "No network: Python's package index could not be reached. The first run needs it, later ones do not. Details: $log"
    elif grep -q 'DO NOT MATCH THE HASHES' "$log"; then
        say "A downloaded file is not the one that requirements/ name by its hash, so nothing was installed from it. Details: $log"
    elif grep -q 'No matching distribution found for tensorflow' "$log"; then
        say "TensorFlow 2.21 has no build for this Python on this machine ($(uname -sm)). Details: $log"
    else
        say "pip failed: $(grep -oE 'ERROR: .*' "$log" | tail -n 1) Details: $log"
    fi
    exit 1
}

# Installs from the named lock files of this Python, for example `base`. What they list is complete, so that pip looks for
# nothing else, and what has to be built is built with what is there.
install_locked() {
    local version name files=()
    version=$(describe "$python")
    version=${version%%$'\n'*}
    for name in "$@"; do files+=(-r "$root/requirements/py$version/$name.txt"); done
    # TF-Agents is in no lock file; requirements/tf-agents.txt says why.
    [ "$1" != base ] || files+=(-r "$root/requirements/tf-agents.txt")
    pip_install --no-deps --require-hashes --no-build-isolation --use-pep517 "${files[@]}"
}

# What has an environment of its own.
install_apart() {
    local purpose=$1
    say "Installing what $0 needs into $prefix (once)"
    rm -f "$prefix/.tfdqn-$purpose"
    install_locked "$purpose"
    stamp write "$prefix/.tfdqn-$purpose" || exit 1
}

install_tfdqn() {
    local purpose=$1 names=base
    # Before anything changes, so that an interrupted installation is taken up again.
    rm -f "$prefix/.tfdqn-base" "$prefix/.tfdqn-test"
    say "Installing tfdqn and what it needs into $prefix: 2 to 5 minutes, about 700 MB to download (once)"
    if [ "$gpu" = yes ]; then
        say "An NVIDIA GPU is here, so CUDA's libraries come along: about 3 GB more (TFDQN_GPU=0 leaves them out)"
        names+=' gpu'
    fi
    [ "$purpose" = base ] || names+=" $purpose"
    # First, because the rest is built with it.
    install_locked build
    install_locked $names
    pip_install --no-deps --no-build-isolation -e "$root"
    say "Checking the installation: about 20 seconds"
    if ! (cd "$prefix" && "$python" -c '
from tfdqn import dependencies
dependencies.require_tf_agents()
from tf_agents.replay_buffers import tf_uniform_replay_buffer
') >>"$log" 2>&1 </dev/null; then
        say "The installation does not work: $(tail -n 1 "$log") Details: $log"
        exit 1
    fi
    stamp write "$prefix/.tfdqn-$purpose" || exit 1
}

# Two at once would write over each other's files. Where flock is missing (macOS), so is this protection.
lock() {
    command -v flock >/dev/null 2>&1 || return 0
    exec 9>"$1" || return 0
    flock -n 9 && return 0
    say "Another set-up is at work; waiting for it"
    flock 9
}

set_up() {
    local purpose=$1
    gpu=no
    # A device file and not nvidia-smi: this is looked up on every run.
    if [ "${TFDQN_GPU:-}" = 1 ] || { [ "${TFDQN_GPU:-}" != 0 ] && [ -e /dev/nvidiactl ]; }; then
        gpu=yes
    fi
    choose_environment "$purpose" || exit 2
    is_up_to_date "$purpose" && return 0

    lock "$root/.venv.lock" # beside .venv, which may be yet to come
    if ! is_up_to_date "$purpose"; then
        log=$(mktemp "${TMPDIR:-/tmp}/tfdqn-setup.XXXXXX") || exit 1
        trap 'rm -f "$log"; say "Stopped. Run this again to go on."; exit 130' INT
        if [ "$is_own" = yes ]; then
            make_venv
        elif ! has_pip; then
            say "The active environment, $prefix, has no pip: install it there or activate another."
            exit 1
        fi
        case $purpose in tools | docs) install_apart "$purpose" ;; *) install_tfdqn "$purpose" ;; esac
        trap - INT
        rm -f "$log"
        say "Ready"
    fi
    { exec 9>&-; } 2>/dev/null
}
