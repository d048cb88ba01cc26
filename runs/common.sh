# Sourced by the scripts in this folder: sets up the environment, runs steps (skips finished ones, continues
# interrupted ones), and shows results.
set -eu
cd "$(dirname "$0")/.."

# Where the run folders go. PYTHON may name another interpreter that has the packages of requirements.txt.
RUNS=${RUNS:-final_exp/reproduce/$(basename "$0" .sh)}
if [ -z "${PYTHON:-}" ]; then
    make .venv/.runtime
    PYTHON=.venv/bin/python
fi

# need PATH WHAT_TO_DO: end with a one-line error if PATH does not exist.
need() {
    [ -e "$1" ] || { echo "error: $1 does not exist; $2" >&2; exit 2; }
}

# check FLAG ...: check the data before hours of computing; errors end the script, warnings (status 3) do not.
check() {
    status=0
    "$PYTHON" check_data.py "$@" || status=$?
    [ "$status" -eq 0 ] || [ "$status" -eq 3 ] || exit "$status"
}

# run_of NAME: the newest run folder of a step.
run_of() {
    ls -td "$RUNS/$1"/*/ 2>/dev/null | head -n 1 | sed 's:/$::'
}

# step NAME SCRIPT FLAG ...: run a script; skip it if it is done, continue it if it was interrupted.
step() {
    name=$1 script=$2
    shift 2
    folder=$(run_of "$name")
    if [ -n "$folder" ] && [ -e "$folder/result.json" ]; then
        echo "$name is done: $folder"
    elif [ -n "$folder" ] && [ -e "$folder/last.pth" ]; then
        "$PYTHON" "$script" --resume "$folder"
    else
        "$PYTHON" "$script" "$@" --out_dir "$RUNS/$name"
    fi
}

# show NAME EXPECTED: print the scores of a step, and the scores of the paper.
show() {
    echo "== $1; expected: $2"
    "$PYTHON" -c "import sys; from tasks.results import load_result; print(load_result(sys.argv[1]))" "$(run_of "$1")"
}
