#!/bin/bash
# A run on a Ray cluster inside a Slurm allocation, which comes and goes with it:
#
#     . .venv/bin/activate
#     sbatch --nodes=4 --gpus-per-node=1 deploy/slurm.sh run configs/celebahq.yaml data.source=/shared/celeba-hq \
#         run_dir=/shared/runs/celebahq
#
# What follows the script is a command of ldsaug. This environment, the run directory and the images must be on storage
# that every node sees. Submit the same again to go on: no finished unit is done twice. Two minutes before the time
# limit the run is told to stop, and saves its training; `scancel --batch --signal=TERM JOB` does the same at any time.
#SBATCH --job-name=ldsaug
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --open-mode=append
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: sbatch $0 run CONFIG [name=value …]" >&2; exit 2; }
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
cpus=${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}
gpus=${SLURM_GPUS_ON_NODE:-0}
ip=$(hostname -I | cut -d' ' -f1) # this script runs on the first node
export RAY_ADDRESS=$ip:$((20000 + SLURM_JOB_ID % 10000))
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN # whoever else is on the network must not run code here
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_USAGE_STATS_ENABLED=0

# one task on each of so many nodes, in the background; `ray start --block` ends when it is killed
start() {
    local count=$1 where=$2
    shift 2
    srun --nodes="$count" --ntasks="$count" --ntasks-per-node=1 --cpus-per-task="$cpus" "$where" \
        env -u RAY_ADDRESS ray start "$@" --num-cpus="$cpus" --num-gpus="$gpus" --metrics-export-port=8090 --block &
}

driver=
finish() {
    local code=$?
    kill $(jobs -p) 2>/dev/null || true
    wait
    [ "$code" -lt 128 ] || echo "stopped; submit the same again to go on" >&2
    exit "$code"
}
trap finish EXIT
trap 'told=yes; [ -n "$driver" ] || exit 143; kill -TERM "$driver" 2>/dev/null || true' TERM
# a short name: Ray's sockets lie below it
start 1 --nodelist="${nodes[0]}" --head --node-ip-address="$ip" --port="${RAY_ADDRESS##*:}" \
    --include-dashboard=false --temp-dir="/tmp/ray-$SLURM_JOB_ID"
head=$!
until ray health-check --address "$RAY_ADDRESS" >/dev/null 2>&1; do
    kill -0 "$head" 2>/dev/null || { echo "Ray's head did not start on ${nodes[0]}" >&2; exit 1; }
    sleep 1
done
others=$((${#nodes[@]} - 1))
[ "$others" -eq 0 ] || start "$others" --exclude="${nodes[0]}" --address="$RAY_ADDRESS"
python - "${#nodes[@]}" <<'PYTHON' || exit 1 # `count: auto` takes the nodes that are there when a stage begins
import sys, time, ray
ray.init(log_to_driver=False, logging_level="error")
deadline = time.monotonic() + 600
while (there := sum(node["Alive"] for node in ray.nodes())) < int(sys.argv[1]):
    if time.monotonic() > deadline:
        sys.exit(f"{there} of {sys.argv[1]} nodes have joined in ten minutes")
    time.sleep(1)
PYTHON

ldsaug "$@" &
driver=$!
while # a signal ends `wait`, but not the run, which has to save
    told='' code=0
    wait "$driver" || code=$?
    [ -n "$told" ]
do :; done
exit "$code"
