#!/bin/sh
# Starts a slurm cluster of one node on this machine, to try `sweep.py --slurm` without a cluster. For a container or a
# machine of your own: it needs root, and Debian's or Ubuntu's packages:
#
#   apt-get install slurm-wlm munge
#   sh tools/one_node_slurm.sh            # start; `sh tools/one_node_slurm.sh stop` ends it
#   python sweep.py --task mmimdb --seeds 0 1 --out sweeps/try --slurm timeout_min=30 cpus_per_task=1 mem_gb=2 -- --demo
#
# Configuration, state and logs lie in /tmp/one_node_slurm. Jobs are not confined (no cgroups), and not accounted.
set -eu
place=/tmp/one_node_slurm

stop() {
  for name in slurmctld slurmd munged; do
    if [ -f "$place/$name.pid" ]; then
      kill "$(cat "$place/$name.pid")" 2>/dev/null || true
      rm -f "$place/$name.pid"
    fi
  done
}

if [ "${1:-start}" = stop ]; then
  stop
  exit 0
fi
for program in munged slurmctld slurmd; do
  command -v $program >/dev/null || PATH="$PATH:/usr/sbin"
  command -v $program >/dev/null || { echo "$program is missing: apt-get install slurm-wlm munge" >&2; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "run this as root: slurmd starts jobs for other users" >&2; exit 2; }

mkdir -p "$place/state" "$place/spool" /etc/slurm
# munge refuses files that others can read, and folders that others can write.
mkdir -p /etc/munge /run/munge "$place/munge"
[ -f /etc/munge/munge.key ] || dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 2>/dev/null
chown -R munge:munge /etc/munge /run/munge "$place/munge"
chmod 0400 /etc/munge/munge.key
chmod 0755 /run/munge "$place/munge"
if [ -e /etc/slurm/slurm.conf ] && ! grep -q one_node_slurm /etc/slurm/slurm.conf; then
  echo "/etc/slurm/slurm.conf is that of another cluster; this machine needs no second one" >&2
  exit 2
fi
host=$(hostname -s)
memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
cat > /etc/slurm/slurm.conf <<CONF
# written by tools/one_node_slurm.sh
ClusterName=one_node_slurm
SlurmctldHost=$host
AuthType=auth/munge
SlurmUser=root
SlurmctldPidFile=$place/slurmctld.pid
SlurmdPidFile=$place/slurmd.pid
SlurmctldLogFile=$place/slurmctld.log
SlurmdLogFile=$place/slurmd.log
StateSaveLocation=$place/state
SlurmdSpoolDir=$place/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
NodeName=$host CPUs=$(getconf _NPROCESSORS_ONLN) RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
stop
setpriv --reuid=munge --regid=munge --clear-groups munged --force --pid-file="$place/munge/munged.pid" \
  --log-file="$place/munge/munged.log" --seed-file="$place/munge/munged.seed"
ln -sf "$place/munge/munged.pid" "$place/munged.pid"
slurmctld
slurmd
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
  sinfo -h -o %T 2>/dev/null | grep -q idle && { sinfo; exit 0; }
  sleep 1
done
echo "the node is not idle yet; see $place/slurmctld.log and $place/slurmd.log" >&2
exit 1
